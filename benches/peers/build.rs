//! Compiles the door to Boost's message queue where Boost's headers are installed.

use std::path::Path;
use std::process::{Command, Stdio};

const SOURCE: &str = "peer/boost_queue.cpp";
const INSTALLED: &str = "/usr/include/boost/version.hpp";
const HEADER: &str = "#include <boost/interprocess/ipc/message_queue.hpp>";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CPLUS_INCLUDE_PATH");
    // A file that is not there would count as changed every time.
    if Path::new(INSTALLED).exists() {
        println!("cargo::rerun-if-changed={INSTALLED}");
    }
    let mut build = cc::Build::new();
    build.cpp(true).file(SOURCE).opt_level(3).warnings(false);
    if !has_header(&build) {
        return;
    }
    build.compile("ringway_peers_boost");
    println!("cargo::rustc-cfg=boost");
}

/// Whether a file that includes the header alone gets through the preprocessor.
fn has_header(build: &cc::Build) -> bool {
    let Ok(compiler) = build.try_get_compiler() else { return false };
    let probe = Path::new(&std::env::var_os("OUT_DIR").expect("set by cargo")).join("probe.cpp");
    std::fs::write(&probe, HEADER).expect("writing to OUT_DIR");
    let mut command: Command = compiler.to_command();
    command.arg("-E").arg(&probe).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
