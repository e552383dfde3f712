"""Records as Arrow batches: our quick way gives what Arrow's own gives."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from ownchat.data.records import SCHEMA, batched, message, record, to_batch

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
COMPACT = st.fixed_dictionaries({"role": TEXT, "content": TEXT}, optional={"time": TEXT})
TURNS = (
    st.lists(COMPACT, max_size=3)
    | st.none()
    | st.lists(st.builds(message, TEXT, TEXT, name=st.none() | TEXT, weight=st.sampled_from([None, 0, 1])), max_size=3)
)
RECORD = st.builds(
    lambda **fields: record("conversation", file="a", format="b", line=1, **fields),
    messages=TURNS, chosen=TURNS, rejected=TURNS, text=st.none() | TEXT, rating=st.none() | st.floats(0, 5),
    desirable=st.none() | st.booleans(), tags=st.lists(TEXT, max_size=2),
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.lists(RECORD, max_size=5))
def test_to_batch_is_from_pylist(rows):
    batch = to_batch(rows)
    batch.validate(full=True)
    assert batch.to_pylist() == pa.RecordBatch.from_pylist(rows, schema=SCHEMA).to_pylist()


def test_batches_are_small_in_rows_and_characters():
    rows = [record("document", file="a", format="text", line=i, text="x" * 1000) for i in range(1, 31)]
    assert [batch.num_rows for batch in batched(rows, size=20)] == [20, 10]
    assert [batch.num_rows for batch in batched(rows, characters=10_000)] == [11, 11, 8]
