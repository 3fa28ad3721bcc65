//! Where a named segment is found, and who may open it.
//!
//! Callers of [`Channel::create`](crate::channel::Channel::create) and its like give both.
//! What always holds: a name that was accepted names one file in the directory of shared memory, and
//! no segment can have the name of another one's half-made successor.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::NameError;
use crate::os::names;

/// Where shared memory has its names.
pub(crate) const SHARED_DIRECTORY: &str = "/dev/shm";
/// What the files of segments begin with there.
pub(crate) const PREFIX: &str = "ringway.";
/// What the files of half-made ones begin with.
pub(crate) const TEMPORARY_PREFIX: &str = "ringway~";
/// What stands there between the name and what makes it unique.
pub(crate) const TEMPORARY_SEPARATOR: char = '~';
/// The longest name: with prefix and suffix a temporary file's name has at most 255 bytes.
const MAX_NAME_BYTES: usize = 200;

/// Where a segment is found.
///
/// ```
/// use std::path::Path;
/// use ringway::segment::Address;
///
/// assert_eq!(Address::from("prices"), Address::Name("prices".into()));
/// assert_eq!(Address::from(Path::new("/run/prices")), Address::File("/run/prices".into()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// Shared memory of this name: the file `/dev/shm/ringway.NAME`, gone with the machine's next
    /// boot.
    Name(String),
    /// A file of its own, which may lie on a disk or in huge pages.
    File(PathBuf),
}

impl Address {
    /// Whether it is shared memory, which does not outlive the machine's uptime.
    pub(crate) fn is_name(&self) -> bool {
        matches!(self, Self::Name(_))
    }
}

impl From<&str> for Address {
    fn from(name: &str) -> Self {
        Self::Name(name.into())
    }
}

impl From<String> for Address {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Self {
        Self::File(path.into())
    }
}

impl From<&PathBuf> for Address {
    fn from(path: &PathBuf) -> Self {
        path.as_path().into()
    }
}

impl From<&String> for Address {
    fn from(name: &String) -> Self {
        name.as_str().into()
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "shared memory {name:?}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Address {
    /// The file's path.
    pub(crate) fn path(&self) -> Result<PathBuf, NameError> {
        match self {
            Self::Name(name) => {
                check(name)?;
                Ok(Path::new(SHARED_DIRECTORY).join(format!("{PREFIX}{name}")))
            }
            Self::File(path) if path.file_name().is_none() => Err(NameError::Invalid {
                name: path.display().to_string(),
                problem: "names no file",
                max: MAX_NAME_BYTES,
            }),
            Self::File(path) => Ok(path.clone()),
        }
    }

    /// A path beside it, for a file in the making.
    pub(crate) fn temporary(&self, unique: u128) -> Result<PathBuf, NameError> {
        let path = self.path()?;
        let name = match self {
            Self::Name(name) => {
                format!("{TEMPORARY_PREFIX}{name}{TEMPORARY_SEPARATOR}{unique:032x}")
            }
            Self::File(_) => format!("{}{unique:032x}", draft_prefix(&path)),
        };
        Ok(path.with_file_name(name))
    }

    /// Whether a file in the same directory has the name of a draft of this one.
    pub(super) fn is_own_draft(&self, file_name: &str) -> bool {
        match self {
            Self::Name(name) => name_of_draft(file_name) == Some(name),
            Self::File(path) => file_name.strip_prefix(&draft_prefix(path)).is_some_and(is_unique),
        }
    }
}

/// What the file names of drafts begin with beside a file. A long name is cut, so that the draft's is
/// a possible one; then drafts of several files may begin alike.
fn draft_prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let end = name.floor_char_boundary(MAX_NAME_BYTES);
    format!(".{}.{TEMPORARY_PREFIX}", &name[..end])
}

/// The name of the segment whose draft a file in the directory of shared memory is.
pub(super) fn name_of_draft(file_name: &str) -> Option<&str> {
    let rest = file_name.strip_prefix(TEMPORARY_PREFIX)?;
    Some(rest.rsplit_once(TEMPORARY_SEPARATOR)?.0)
}

/// Whether a file has the name of a draft beside a file.
pub(super) fn is_draft(file_name: &str) -> bool {
    let unique = file_name.strip_prefix('.').and_then(|name| name.rsplit_once('.'));
    unique.and_then(|(_, rest)| rest.strip_prefix(TEMPORARY_PREFIX)).is_some_and(is_unique)
}

/// Whether this is what makes a draft's name unique.
fn is_unique(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn check(name: &str) -> Result<(), NameError> {
    let problem = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_NAME_BYTES {
        "is too long"
    } else if name.starts_with('.') {
        "begins with a dot"
    } else if name.contains('/') {
        "contains a slash"
    } else if name.chars().any(char::is_control) {
        "contains a control character"
    } else {
        return Ok(());
    };
    Err(NameError::Invalid { name: name.into(), problem, max: MAX_NAME_BYTES })
}

/// Who may open a named segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Permission bits of the file, whatever the umask. Whoever may write it is a peer like any
    /// other: it can lie about being alive, and cut the file. Opening refuses a file that permits
    /// more. Default `0o600`.
    pub mode: u32,
    /// User id that the file must belong to; the effective one of this process where `None`.
    pub owner: Option<u32>,
}

impl Default for Access {
    fn default() -> Self {
        Self { mode: 0o600, owner: None }
    }
}

impl Access {
    /// Refuses a file that is somebody else's, or lets in more than this.
    pub(crate) fn check(
        &self,
        address: &impl fmt::Display,
        found: &fs::Metadata,
    ) -> Result<(), NameError> {
        check_regular(address, found)?;
        let expected = self.owner.unwrap_or_else(names::effective_user);
        if found.uid() != expected {
            let found = format!("belongs to user {}", found.uid());
            return Err(not_ours(address, found, format!("user {expected}")));
        }
        let (mode, allowed) = (found.mode() & 0o777, self.mode & 0o777);
        if mode & !allowed != 0 {
            let found = format!("mode {mode:#o}");
            return Err(not_ours(address, found, format!("no more than {allowed:#o}")));
        }
        Ok(())
    }
}

/// Refuses what is no regular file.
pub(super) fn check_regular(
    address: &impl fmt::Display,
    found: &fs::Metadata,
) -> Result<(), NameError> {
    if found.is_file() {
        return Ok(());
    }
    Err(not_ours(address, format!("{:?}", found.file_type()), "a regular file".into()))
}

fn not_ours(address: &impl fmt::Display, found: String, expected: String) -> NameError {
    NameError::NotOurs { address: address.to_string(), found, expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for bad in ["", ".", "..", ".a", "a/b", "a\0b", "a\nb", &"x".repeat(201)] {
            assert!(matches!(Address::from(bad).path(), Err(NameError::Invalid { .. })), "{bad:?}");
        }
        assert!(Address::from(Path::new("/")).path().is_err());
        let longest = Address::from("x".repeat(200));
        let temporary = longest.temporary(u128::MAX).unwrap();
        assert!(temporary.file_name().unwrap().len() <= 255);
        let longest = Address::from(Path::new("/tmp").join("ä".repeat(127)));
        let temporary = longest.temporary(u128::MAX).unwrap();
        let draft = temporary.file_name().unwrap().to_str().unwrap();
        assert!(draft.len() <= 255 && is_draft(draft) && longest.is_own_draft(draft), "{draft}");
        assert!(!Address::from(Path::new("/tmp/a")).is_own_draft(draft));
        assert!(!is_draft(".a.ringway~1") && !is_draft("a.ringway~0"));
        assert_eq!(Address::from("ä b").path().unwrap(), Path::new("/dev/shm/ringway.ä b"));
    }
}
