//! What the README tells a new user to type works.
