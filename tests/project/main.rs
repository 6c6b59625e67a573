//! The project's own promises: the architecture's arrows, and documents that say what the code
//! does.

mod arrows;
mod contenders;
mod documents;
mod fuzzing;
mod readme;
mod specs;
