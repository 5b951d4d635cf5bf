//! The program against what other people wrote: their simulators of plugs, their servers, their
//! schema. `make others` installs them. What is missing is a failure.
#![allow(clippy::unwrap_used, reason = "this is a test")]

mod fence_testing;
mod home_assistant;
mod httpbin;
mod kasa;
mod klap;
mod metadata;
mod plugs;
#[path = "../program/mod.rs"]
mod program;
mod report;
mod server;
