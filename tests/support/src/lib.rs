//! What the lab and the conformance tests need of their host: programs with a deadline, Debian's packages, and a folder
//! for what is made once and kept under a digest of what it is made from.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they are programs for a terminal and drive many others; the rules of the agents are not their own"
)]

pub mod cache;
pub mod command;
pub mod debian;
pub mod recipe;
