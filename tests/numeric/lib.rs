//! The numeric tests and the programs that compare with references; see `main.rs` and `examples`.
