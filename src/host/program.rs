//! What a plugin executes: program, arguments, environment, directory, standard streams.
//!
//! Callers set it on a [`PluginSpec`]; the launcher makes an [`Image`](crate::os::child::Image) of it
//! at every start. Invariants: a specification can be started again and again; what a start needs is
//! made before there is a child.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::spec::PluginSpec;
use crate::os::spawn::above_standard;

/// Where a plugin's standard stream leads.
#[derive(Debug, Clone)]
pub struct Stdio(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Null,
    Inherit,
    Piped,
    File(Arc<OwnedFd>),
}

impl Stdio {
    /// Nowhere: reading finds the end, writing discards.
    pub fn null() -> Self {
        Self(Kind::Null)
    }

    /// Where the host's own stream leads. The plugin shares the host's open file: one that sets
    /// `O_NONBLOCK` on it makes the host's own writes fail, and one in a process group of its own is
    /// stopped when it reads from the host's terminal.
    pub fn inherit() -> Self {
        Self(Kind::Inherit)
    }

    /// A pipe to the host: see [`PluginHandle::take_stdout`](super::PluginHandle::take_stdout). Each
    /// incarnation has a new one.
    pub fn piped() -> Self {
        Self(Kind::Piped)
    }
}

impl From<OwnedFd> for Stdio {
    /// An open file, the same one for all incarnations.
    fn from(fd: OwnedFd) -> Self {
        Self(Kind::File(Arc::new(fd)))
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Self {
        OwnedFd::from(file).into()
    }
}

impl From<PipeReader> for Stdio {
    fn from(pipe: PipeReader) -> Self {
        OwnedFd::from(pipe).into()
    }
}

impl From<PipeWriter> for Stdio {
    fn from(pipe: PipeWriter) -> Self {
        OwnedFd::from(pipe).into()
    }
}

/// The host's ends of a plugin's piped streams, until somebody takes them.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pub(super) stdin: Option<PipeWriter>,
    pub(super) stdout: Option<PipeReader>,
    pub(super) stderr: Option<PipeReader>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Program {
    program: OsString,
    arguments: Vec<OsString>,
    clear_environment: bool,
    /// `None` removes a variable.
    environment: BTreeMap<OsString, Option<OsString>>,
    directory: Option<PathBuf>,
    streams: [Option<Stdio>; 3],
}

impl Program {
    pub(super) fn new(program: OsString) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            clear_environment: false,
            environment: BTreeMap::new(),
            directory: None,
            streams: [None, None, None],
        }
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    pub(super) fn directory(&self) -> io::Result<Option<CString>> {
        self.directory.as_deref().map(|path| c_string(path.as_os_str())).transpose()
    }

    /// The program's name and its arguments.
    pub(super) fn argv(&self) -> io::Result<Vec<CString>> {
        [&self.program].into_iter().chain(&self.arguments).map(|text| c_string(text)).collect()
    }

    /// The plugin's environment, with one more variable.
    pub(super) fn environment(&self, key: &str, value: String) -> BTreeMap<OsString, OsString> {
        let mut all: BTreeMap<OsString, OsString> =
            if self.clear_environment { BTreeMap::new() } else { env::vars_os().collect() };
        for (key, value) in &self.environment {
            match value {
                Some(value) => _ = all.insert(key.clone(), value.clone()),
                None => _ = all.remove(key),
            }
        }
        all.insert(key.into(), value.into());
        all
    }

    /// The paths at which the program may be. A name without a slash is looked for in the plugin's
    /// `PATH`; in the host's where the plugin has none.
    pub(super) fn paths(
        &self,
        environment: &BTreeMap<OsString, OsString>,
    ) -> io::Result<Vec<CString>> {
        if self.program.as_bytes().contains(&b'/') {
            return Ok(vec![c_string(&self.program)?]);
        }
        let path = environment.get(OsStr::new("PATH")).cloned().or_else(|| env::var_os("PATH"));
        let path = path.unwrap_or_else(|| "/bin:/usr/bin".into());
        let directories = env::split_paths(&path);
        directories.map(|path| c_string(path.join(&self.program).as_os_str())).collect()
    }

    /// The plugin's streams and the host's ends of pipes. Outputs that nobody has set are the host's,
    /// or null where `isolated`: the plugin runs as another user.
    pub(super) fn streams(&self, isolated: bool) -> io::Result<([Option<OwnedFd>; 3], Pipes)> {
        let mut pipes = Pipes::default();
        let output = if isolated { Stdio::null() } else { Stdio::inherit() };
        let [stdin, stdout, stderr] = &self.streams;
        let (stdin, ours) = match &stdin.as_ref().unwrap_or(&Stdio::null()).0 {
            Kind::Piped => {
                let (theirs, ours) = io::pipe()?;
                (Some(theirs.into()), Some(ours))
            }
            other => (open(other)?, None),
        };
        pipes.stdin = ours;
        let out = |stream: &Option<Stdio>| match &stream.as_ref().unwrap_or(&output).0 {
            Kind::Piped => {
                let (ours, theirs) = io::pipe()?;
                io::Result::Ok((Some(theirs.into()), Some(ours)))
            }
            other => Ok((open(other)?, None)),
        };
        let (stdout, ours) = out(stdout)?;
        pipes.stdout = ours;
        let (stderr, ours) = out(stderr)?;
        pipes.stderr = ours;
        let above = |fd: Option<OwnedFd>| fd.map(above_standard).transpose();
        Ok(([above(stdin)?, above(stdout)?, above(stderr)?], pipes))
    }
}

/// A descriptor for what is no pipe; `None` keeps the host's.
fn open(kind: &Kind) -> io::Result<Option<OwnedFd>> {
    match kind {
        Kind::Null => {
            let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
            Ok(Some(null.into()))
        }
        Kind::File(file) => file.try_clone().map(Some),
        Kind::Inherit | Kind::Piped => Ok(None),
    }
}

pub(super) fn c_string(text: &OsStr) -> io::Result<CString> {
    let nul = |_| io::Error::new(io::ErrorKind::InvalidInput, "contains a NUL byte");
    CString::new(text.as_bytes()).map_err(nul)
}

/// `KEY=value` strings.
pub(super) fn c_environment(all: BTreeMap<OsString, OsString>) -> io::Result<Vec<CString>> {
    let pairs = all.into_iter().map(|(key, value)| {
        let mut text = key.into_vec();
        text.push(b'=');
        text.extend(value.as_bytes());
        c_string(OsStr::from_bytes(&text))
    });
    pairs.collect()
}

/// # Program
///
/// The plugin inherits the host's environment and working directory unless these say otherwise. Its
/// standard input is null. Its outputs are the host's; under [`run_as`](Self::run_as) they are null.
impl PluginSpec {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.program.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.program.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.program.environment.insert(key.into(), Some(value.into()));
        self
    }

    /// Removes an environment variable that the plugin would inherit, or that was set before.
    #[must_use]
    pub fn env_remove(mut self, key: impl Into<OsString>) -> Self {
        self.program.environment.insert(key.into(), None);
        self
    }

    /// Removes all environment variables; those that are set afterwards remain.
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.program.clear_environment = true;
        self.program.environment.clear();
        self
    }

    /// Sets the working directory. It is entered under the plugin's own user id.
    #[must_use]
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.program.directory = Some(directory.as_ref().into());
        self
    }

    /// Sets standard input: an open file, or [`Stdio`].
    #[must_use]
    pub fn stdin(mut self, stream: impl Into<Stdio>) -> Self {
        self.program.streams[0] = Some(stream.into());
        self
    }

    /// Sets standard output: an open file, or [`Stdio`].
    #[must_use]
    pub fn stdout(mut self, stream: impl Into<Stdio>) -> Self {
        self.program.streams[1] = Some(stream.into());
        self
    }

    /// Sets standard error: an open file, or [`Stdio`].
    #[must_use]
    pub fn stderr(mut self, stream: impl Into<Stdio>) -> Self {
        self.program.streams[2] = Some(stream.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_changed_in_the_order_of_the_calls() {
        let spec = PluginSpec::new("p", "true").env("A", "1").env_clear().env("B", "2");
        let all = spec.env("C", "3").env_remove("C").program.environment("K", "v".into());
        let expected = [("B", "2"), ("K", "v")].map(|(key, value)| (key.into(), value.into()));
        assert_eq!(all, BTreeMap::from(expected));
        let text: Vec<_> = c_environment(all).unwrap();
        assert_eq!(text, [c"B=2".to_owned(), c"K=v".to_owned()]);
        assert!(c_string(OsStr::new("a\0b")).is_err());
    }

    #[test]
    fn a_name_without_a_slash_is_looked_for_in_the_plugin_s_path() {
        let spec = PluginSpec::new("p", "tool").env("PATH", "/a:/b");
        let all = spec.program.environment("K", String::new());
        let found = spec.program.paths(&all).unwrap();
        assert_eq!(found, [c"/a/tool".to_owned(), c"/b/tool".to_owned()]);
        let spec = PluginSpec::new("p", "./tool");
        assert_eq!(spec.program.paths(&all).unwrap(), [c"./tool".to_owned()]);
    }
}
