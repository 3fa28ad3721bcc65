//! Names in shared memory that are gone when the test is over, however it ends.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, process};

use ringway::segment::Address;

/// A name that nobody else uses.
#[derive(Debug)]
pub struct Name {
    text: String,
    owner: u32,
}

impl Name {
    pub fn new(what: &str) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let owner = process::id();
        Self { text: format!("test-{what}-{owner}-{number}"), owner }
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/shm/ringway.{}", self.text))
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Files of creators that did not get to the end.
    pub fn temporaries(&self) -> Vec<PathBuf> {
        let prefix = format!("ringway~{}~", self.text);
        let entries = fs::read_dir("/dev/shm").unwrap().map(|entry| entry.unwrap().path());
        entries
            .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&prefix))
            .collect()
    }
}

impl From<&Name> for Address {
    fn from(name: &Name) -> Self {
        Self::Name(name.text.clone())
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // Not in a forked child.
        if self.owner == process::id() {
            let _ = fs::remove_file(self.path());
            for path in self.temporaries() {
                let _ = fs::remove_file(path);
            }
        }
    }
}
