//! The signer's durable memory: a hash-chained journal, and the charge that is on disk before any key is used.
