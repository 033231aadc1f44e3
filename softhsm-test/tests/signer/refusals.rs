//! Each refusal, through the socket: the code is the promise. Those of transactions are in the corpus (`softhsm-test/hostile/`).

mod every;
mod intake;
