"""Mail: mbox, single messages and maildir, taken apart and put together to threads."""
