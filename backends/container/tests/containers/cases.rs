//! The cases.

use crate::run::Case;

type Named = (&'static str, fn());

pub(crate) fn all() -> Vec<Named> {
    vec![("true", || Case::host(&["true"]).run().says(""))]
}
