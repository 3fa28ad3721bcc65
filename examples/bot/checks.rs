//! What was expected, and what happened.

use std::error::Error;
use std::fmt::Debug;

/// Steps that went as expected.
#[derive(Debug, Default)]
pub struct Checks {
    passed: u32,
}

impl Checks {
    /// That something is as expected; else it is said what it was, and that is the end.
    pub fn same<T: PartialEq + Debug>(
        &mut self,
        what: &str,
        found: T,
        expected: T,
    ) -> Result<(), Box<dyn Error>> {
        if found != expected {
            return Err(format!("{what}: {found:?}, where {expected:?} was expected").into());
        }
        self.passed(what);
        Ok(())
    }

    /// That something holds.
    pub fn holds(&mut self, what: &str, holds: bool) -> Result<(), Box<dyn Error>> {
        if !holds {
            return Err(format!("{what}: that is not so").into());
        }
        self.passed(what);
        Ok(())
    }

    fn passed(&mut self, what: &str) {
        self.passed += 1;
        println!("{:>3}. {what}", self.passed);
    }

    pub fn count(&self) -> u32 {
        self.passed
    }
}
