// What the SDK for JavaScript has to be able to do here. Run by tests/serve/test_other_sdks.py.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { VERSION } from "openai/version";

const client = new OpenAI({ maxRetries: 0 });
const messages = [{ role: "user", content: "Can I change my delivery address?" }];
const asked = { model: "starter", messages, max_tokens: 8 };

const whole = await client.chat.completions.create({ ...asked, logprobs: true, top_logprobs: 2 });
const text = whole.choices[0].message.content;
assert(text && whole.choices[0].logprobs.content.length > 0);

let streamed = "";
let usage = null;
for await (const chunk of await client.chat.completions.create({
  ...asked, stream: true, stream_options: { include_usage: true },
})) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(streamed, text);
assert.deepEqual(usage, whole.usage);

const ids = [];
for await (const model of client.models.list()) ids.push(model.id);
assert.deepEqual(ids, ["starter"]);

const made = await client.chat.completions.create({ ...asked, store: true });
await client.chat.completions.update(made.id, { metadata: { rating: "up" } });
const found = [];
for await (const one of client.chat.completions.list({ metadata: { rating: "up" } })) found.push(one.id);
assert.deepEqual(found, [made.id]);
await client.chat.completions.delete(made.id);

const reply = await client.responses.create({ model: "starter", input: messages[0].content, max_output_tokens: 8 });
assert.equal(reply.output_text, text);
let told = "";
for await (const event of await client.responses.create({
  model: "starter", input: messages[0].content, max_output_tokens: 8, stream: true,
})) {
  if (event.type === "response.output_text.delta") told += event.delta;
}
assert.equal(told, text);

const schema = {
  type: "object", properties: { city: { enum: ["Oslo"] } }, required: ["city"], additionalProperties: false,
};
const parsed = await client.chat.completions.create({
  ...asked, max_tokens: 60, response_format: { type: "json_schema", json_schema: { name: "x", schema, strict: true } },
});
assert.equal(JSON.parse(parsed.choices[0].message.content).city, "Oslo");
const tools = [{ type: "function", function: { name: "track", parameters: schema } }];
const called = await client.chat.completions.create({
  ...asked, max_tokens: 60, tools, tool_choice: { type: "function", function: { name: "track" } },
});
assert.equal(called.choices[0].message.tool_calls[0].function.name, "track");

await assert.rejects(client.chat.completions.create({ ...asked, model: "none" }), OpenAI.NotFoundError);
await assert.rejects(client.chat.completions.create({ ...asked, temperature: 9 }), OpenAI.BadRequestError);
console.log(`openai ${VERSION} for JavaScript: all well`);
