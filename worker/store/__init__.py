"""Where an owner keeps the committed records of its orders (`ports.OrderTable`): in memory, or on the disk beside it.

`memory.py` is a dict. `disk.py` is for more orders than memory: a copy of the state partition in a database of its own
(`rocks.py`), and in memory what is used. `tables.py` opens the copies, and throws away what does not fit.

**The copy is a cache of the state topic, and believed no further than its own checkpoint.** It has the keys of the
topic: `o:<subject>` an order, `n:<key>` any other record. Besides: `u:<subject>` for each order that a takeover has to
look at, `counts` of orders by account, and `checkpoint`: what it is a copy of (cluster, topic id, partition, topic
epoch, schema), up to which offset, and when. An owner that starts fences the partition, writes its barrier, and reads
the topic from that offset on instead of from the first: all that is between there and the barrier is applied anew. So:

* *Rows may be newer than the checkpoint says, never older*: what is applied twice comes to the same. A crash may lose
  the end of what was written, or all of it; it costs reading more of the topic.
* Rows go with their checkpoint, their marks and their counts in one atomic write, after the commit and off the loop.
  Nobody waits for them. What was put while one batch is written makes up the next one.
* The topic decides. The copy is thrown away, and the partition restored from the topic, when the checkpoint names
  another topic, partition, epoch or schema; when brokers know no topic ids; when its offset is beyond our own barrier;
  when it is older than a day by the clock, or from the future (tombstones can be read for two days, so what was deleted
  might be missed); when a file, or a record in it, is damaged.
* `flock` on a file in the folder keeps a second worker out.

**In memory** are the orders used last (`cache`), what is not written yet, and the names of those that are owed: the
outbox is made of these at a restart, and no other order is read. What a batch of events is about is read ahead in a
thread (`fetch`), so that the loop does not wait for the disk; other reads are of a few orders at a time, each some
microseconds where the system has the page, and as long as the disk takes where not.

**When the disk fails.** Writing (full, read-only): what changes stays in memory, as it would without a disk, and
writing is tried again every half a minute. Reading, or a checksum that is wrong: the owner ends with `StoreError`,
which is a `LogError`, so the partition is restored from Kafka like any that was lost: into a new database at first, and
into memory if that fails, too. Both are said in the log and counted (`cartsync_store_failures_total`).
"""
