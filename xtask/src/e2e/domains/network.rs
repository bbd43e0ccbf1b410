//! The daemon over the network: the fence agent, a quorum server, and STONITH by an agent.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::lab::{Lab, Node};
use crate::context::Context;
use crate::process::{Finished, finish};
use crate::targets::Target;
use crate::targets::ringfence::Ringfence;

const LIMIT: Duration = Duration::from_secs(60);
const WON: i32 = 0;
const LOST: i32 = 3;
const VOLUMES: [&str; 2] = ["v1", "v2"];

/// Where the certificates are.
struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    fn make(context: &Context) -> Result<Self> {
        let folder = context.folder("domains-certificates")?;
        let made = Self { folder };
        made.ringfence(context, &["init"], &[])?;
        for head in ["head", "arbiter"] {
            made.issue(context, head, &["--role", "head", "--address", "127.0.0.1"])?;
        }
        made.issue(context, "agent", &["--role", "fence", "--domain", "prod"])?;
        made.issue(context, "other", &["--role", "fence", "--domain", "test"])?;
        Ok(made)
    }

    fn issue(&self, context: &Context, name: &str, options: &[&str]) -> Result<()> {
        self.ringfence(context, &["issue"], &[&[name], options].concat())
    }

    fn ringfence(&self, context: &Context, verb: &[&str], rest: &[&str]) -> Result<()> {
        let mut command = Command::new(context.ringfence()?);
        command
            .arg("certificate")
            .args(verb)
            .arg(&self.folder)
            .args(rest);
        let finished = finish(&mut command, LIMIT)?;
        ensure!(finished.code == 0, "{}", finished.text());
        Ok(())
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// The options of `serve`.
    fn serve(&self, name: &str, api: SocketAddr) -> Vec<String> {
        let (certificate, key) = (
            self.file(&format!("{name}.pem")),
            self.file(&format!("{name}.key")),
        );
        let all = [
            "--api",
            &api.to_string(),
            "--tls-cert",
            &certificate,
            "--tls-key",
            &key,
            "--tls-ca",
            &self.file("ca.pem"),
        ];
        all.map(str::to_owned).to_vec()
    }
}

/// An address of the loopback that is free now.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Everything, with a head and an arbiter.
pub(super) fn run(context: &Context) -> Result<()> {
    let certificates = Certificates::make(context)?;
    let (head_api, arbiter_api) = (free_address()?, free_address()?);
    let arguments = certificates.serve("arbiter", arbiter_api);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let folder = context.folder("domains-arbiter")?;
    let portals = crate::targets::loopback_portals(1)?;
    let mut arbiter =
        Ringfence::new(context.ringfence()?, &folder, portals)?.with_arguments(&arguments);
    arbiter.start()?;
    arbiter.add_device("a", "64M")?;

    let arguments = certificates.serve("head", head_api);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut lab = Lab::start_with(context, "domains-network", &arguments)?;
    let agent = Agent {
        program: context.ringfence()?.with_file_name("fence_ringfence"),
        certificates,
        head: head_api,
    };
    let done = scenes(&lab, &agent, &mut arbiter, arbiter_api);
    done.with_context(|| {
        format!(
            "the head said:\n{}\nthe arbiter:\n{}",
            lab.daemon.log_tail(),
            arbiter.log_tail()
        )
    })?;
    lab.daemon.terminate()?;
    arbiter.terminate()?;
    Ok(())
}

fn scenes(lab: &Lab, agent: &Agent, arbiter: &mut Ringfence, at: SocketAddr) -> Result<()> {
    let luns = lab.volumes(&VOLUMES)?;
    let at = at.to_string();
    lab.domain("prod", &VOLUMES, &["a", "b"], &["--quorum-server", &at])?;
    let mut a = Node::join(lab, "a", &luns)?;
    let mut b = Node::join(lab, "b", &luns)?;

    // One of two is no majority; with the arbiter's vote it is.
    let race = ["domain", "race", "prod", "--as", "a", "--with", "a"];
    let verdict = lab.exits(WON, &race)?;
    ensure!(verdict["fenced"] == serde_json::json!(["b"]), "{verdict}");
    ensure!(b.is_fenced_on(luns[0])? && !a.is_fenced_on(luns[0])?);

    through_the_agent(agent, &mut b, luns[0])?;
    b.register()?;

    // Without the arbiter its votes are gone, and nothing else is.
    arbiter.kill()?;
    let verdict = lab.exits(LOST, &race)?;
    ensure!(verdict["fenced"] == serde_json::json!([]), "{verdict}");
    ensure!(!b.is_fenced_on(luns[0])?, "nobody won, and b was fenced");
    let both = ["domain", "race", "prod", "--as", "a", "--with", "a,b"];
    lab.exits(WON, &both)?;
    let events = lab.daemon.cli_ok(&["events", "--json"])?;
    ensure!(events.contains("quorum-device-lost"), "{events}");
    arbiter.start()?;
    lab.exits(WON, &race)?;
    ensure!(b.is_fenced_on(luns[1])?);
    agent.does(0, "on", "b")?;

    stonith(lab, agent)
}

/// `fence_ringfence` as a cluster manager uses it.
struct Agent {
    program: PathBuf,
    certificates: Certificates,
    head: SocketAddr,
}

impl Agent {
    fn run(&self, certificate: &str, action: &str, plug: &str) -> Result<Finished> {
        let mut command = Command::new(&self.program);
        let file = |name: &str| self.certificates.file(name);
        for (name, value) in [
            ("action", action.to_owned()),
            ("domain", "prod".to_owned()),
            ("plug", plug.to_owned()),
            ("ip", self.head.to_string()),
            ("tls-cert", file(&format!("{certificate}.pem"))),
            ("tls-key", file(&format!("{certificate}.key"))),
            ("tls-ca", file("ca.pem")),
        ] {
            command.arg(format!("--{name}={value}"));
        }
        finish(&mut command, LIMIT)
    }

    fn does(&self, code: i32, action: &str, plug: &str) -> Result<String> {
        let finished = self.run("agent", action, plug)?;
        ensure!(
            finished.code == code,
            "fence_ringfence {action} {plug} exited with {} instead of {code}:\n{}",
            finished.code,
            finished.text()
        );
        Ok(finished.stdout)
    }
}

/// `b` is fenced when this begins, and is not when it ends.
fn through_the_agent(agent: &Agent, b: &mut Node, lun: scsi::Lun) -> Result<()> {
    agent.does(0, "monitor", "b")?;
    agent.does(0, "validate-all", "b")?;
    agent.does(2, "status", "b")?;
    agent.does(0, "status", "a")?;
    agent.does(1, "status", "nobody")?;
    agent.does(0, "on", "b")?;
    agent.does(0, "status", "b")?;
    b.register()?;
    ensure!(!b.is_fenced_on(lun)?, "b is on and cannot write");
    agent.does(0, "off", "b")?;
    ensure!(b.is_fenced_on(lun)?, "b is off and writes");
    let list = agent.does(0, "list-status", "b")?;
    ensure!(list == "a,a,on\nb,b,off\n", "{list}");
    // A certificate for another domain fences nobody here.
    let stranger = agent.run("other", "on", "b")?;
    ensure!(
        stranger.code == 1 && stranger.text().contains("for the domain test"),
        "{}",
        stranger.text()
    );
    ensure!(b.is_fenced_on(lun)?, "a stranger unfenced b");
    agent.does(0, "on", "b").map(drop)
}

/// A member that is switched off by an agent: its machine is a file.
fn stonith(lab: &Lab, agent: &Agent) -> Result<()> {
    let folder = &agent.certificates.folder;
    let (program, power) = (folder.join("fence_file"), folder.join("power"));
    write_agent(&program, &power)?;
    let method = format!("stonith:{},reservation", program.display());
    lab.member("prod", "c", &["--method", &method])?;
    let done = lab.daemon.cli_json(&["fence", "prod", "c"])?;
    ensure!(
        done["proven"]
            .as_str()
            .is_some_and(|proven| proven.starts_with("stonith:")),
        "{done}"
    );
    ensure!(!power.exists(), "the machine is on");
    let events = lab.daemon.cli_ok(&["events", "--json"])?;
    ensure!(events.contains("says that it is off"), "{events}");
    Ok(())
}

fn write_agent(program: &Path, power: &Path) -> Result<()> {
    std::fs::write(power, "")?;
    let script = format!(
        "#!/bin/sh\nwhile IFS== read -r k v; do test \"$k\" = action && action=$v; done\n\
         case $action in metadata) echo '<resource-agent/>';; off) rm -f {power};; status) test -e {power} || exit 2;; *) exit 1;; esac\n",
        power = power.display()
    );
    std::fs::write(program, script)?;
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}
