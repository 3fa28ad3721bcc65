//! Tests of what only this crate can call; the suites in `tests/` cover the rest.
