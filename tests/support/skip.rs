//! Tests that can't be run here say why. `cargo xtask test` counts the lines.

use std::any;
use std::io::{self, Write};

/// Says why the test around it is not run, and ends it.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        fn here() {}
        $crate::skip::tell($crate::skip::test_of(&here), &format!($($reason)*));
        return Ok(Default::default());
    }};
}

/// Says why a test is not run. Past the test harness, which would capture it.
pub fn tell(test: &str, reason: &str) {
    let line = format!("skipped: {test}: {}\n", reason.replace('\n', " "));
    // Whoever would have read it is gone.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// The name of the function in which a function `here` is defined; of a behaviour case, whose
/// functions are all called `case`, that of its file.
pub fn test_of<T>(here: &T) -> &'static str {
    let path = any::type_name_of_val(here).trim_end_matches("::here");
    path.trim_end_matches("::case").rsplit("::").next().unwrap_or(path)
}
