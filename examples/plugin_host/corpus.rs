//! The lines to stream.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Files in memory, cut into lines.
#[derive(Debug)]
pub struct Corpus {
    files: usize,
    text: Vec<u8>,
    /// Where each line lies in `text`.
    lines: Vec<(usize, usize)>,
}

impl Corpus {
    /// Reads all files, or this repository's own where none is named.
    pub fn load(paths: &[PathBuf]) -> Result<Self, String> {
        let own;
        let paths = if paths.is_empty() {
            own = own_files()?;
            &own
        } else {
            paths
        };
        let mut corpus = Self { files: paths.len(), text: Vec::new(), lines: Vec::new() };
        for path in paths {
            let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            corpus.append(&text);
        }
        if corpus.lines.is_empty() {
            return Err("there are no lines in these files".into());
        }
        Ok(corpus)
    }

    fn append(&mut self, text: &[u8]) {
        let mut start = self.text.len();
        self.text.extend_from_slice(text);
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            let len = line.strip_suffix(b"\n").unwrap_or(line).len();
            self.lines.push((start, start + len));
            start += line.len();
        }
    }

    pub fn files(&self) -> usize {
        self.files
    }

    pub fn lines(&self) -> u64 {
        self.lines.len() as u64
    }

    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The line with this number, counted over as many passes as it takes; without its line break.
    pub fn line(&self, number: u64) -> &[u8] {
        let (start, end) = self.lines[(number % self.lines()) as usize];
        &self.text[start..end]
    }

    pub fn longest(&self) -> usize {
        self.lines.iter().map(|(start, end)| end - start).max().unwrap_or(0)
    }
}

/// The text files of the repository that this program was built from, or of the current directory.
fn own_files() -> Result<Vec<PathBuf>, String> {
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = if built_from.join("Cargo.toml").is_file() { built_from } else { Path::new(".") };
    let mut files = Vec::new();
    collect(root, false, &mut files).map_err(|error| format!("{}: {error}", root.display()))?;
    for directory in ["src", "examples", "tests", "benches"] {
        let directory = root.join(directory);
        if directory.is_dir() {
            collect(&directory, true, &mut files)
                .map_err(|error| format!("{}: {error}", directory.display()))?;
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(format!("no text files in {}: name some", root.display()));
    }
    Ok(files)
}

fn collect(directory: &Path, deep: bool, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_text = path
            .extension()
            .is_some_and(|extension| ["md", "rs", "toml"].iter().any(|text| extension == *text));
        if path.is_dir() && deep {
            collect(&path, deep, files)?;
        } else if path.is_file() && is_text {
            files.push(path);
        }
    }
    Ok(())
}
