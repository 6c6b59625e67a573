//! The spec as its users see it: what is accepted, what it means, and every word of what is not.
#![allow(clippy::expect_used, clippy::panic, reason = "what tests share fails as they do")]

mod hostile;
mod problems;
mod properties;
mod resolve;
mod shipped;
