//! What the guests of a cluster need of ringfence: its binaries and a certificate, as a disk.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::context::Context;
use crate::process::{command, run};

/// Where the head answers fence agents.
const API: &str = "10.77.0.1";
const FILES: [&str; 5] = [
    "usr/sbin/ringfence-node",
    "usr/sbin/fence_ringfence",
    "etc/ringfence/tls/node.pem",
    "etc/ringfence/tls/node.key",
    "etc/ringfence/tls/ca.pem",
];

/// Files for the guests, and the head's own certificate.
#[derive(Debug)]
pub struct Tools {
    /// The disk: an archive to be unpacked at the root.
    pub tar: PathBuf,
    certificates: PathBuf,
}

impl Tools {
    /// Makes an authority with a certificate for the head and one for the nodes, and the disk.
    ///
    /// # Errors
    /// When the binary refuses, the node for guests does not compile, or a file is not there.
    pub fn make(context: &Context, folder: &Path) -> Result<Self> {
        let binary = context.ringfence()?;
        let node = context.static_node()?;
        let root = folder.join("tools");
        let certificates = folder.join("certificates");
        let program = binary.display().to_string();
        let issue = |options: &[&str]| {
            let mut certificate = command(&program, ["certificate", options[0]]);
            run(certificate.arg(&certificates).args(&options[1..]))
        };
        issue(&["init"])?;
        issue(&["issue", "head", "--role", "head", "--address", API])?;
        issue(&[
            "issue",
            "node",
            "--role",
            "fence",
            "--domain",
            super::domain::NAME,
        ])?;
        for file in FILES {
            let place = root.join(file);
            let name = place.file_name().unwrap_or_default();
            fs::create_dir_all(place.parent().unwrap_or(&root))?;
            let source = match file {
                "usr/sbin/ringfence-node" => node.clone(),
                "usr/sbin/fence_ringfence" => binary.with_file_name(name),
                _ => certificates.join(name),
            };
            fs::copy(source, &place)?;
        }
        let tar = folder.join("tools.tar");
        run(command("tar", ["-C"])
            .arg(&root)
            .arg("-cf")
            .arg(&tar)
            .args(FILES))?;
        fs::remove_dir_all(&root)?;
        Ok(Self { tar, certificates })
    }

    /// What the head is started with, to answer fence agents.
    pub fn serve_arguments(&self) -> Vec<String> {
        let file = |name: &str| self.certificates.join(name).display().to_string();
        let options = [
            ("--api", API.to_owned()),
            ("--tls-cert", file("head.pem")),
            ("--tls-key", file("head.key")),
            ("--tls-ca", file("ca.pem")),
        ];
        options
            .into_iter()
            .flat_map(|(option, value)| [option.to_owned(), value])
            .collect()
    }
}
