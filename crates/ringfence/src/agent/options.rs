//! What the agent is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use fencing::Method;

use super::metadata::{PARAMETERS, Parameter};
use crate::network::Identity;
use crate::network::client::host_and_port;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Metadata,
    Off,
    On,
    Reboot,
    Status,
    Monitor,
    List,
    ListStatus,
    ValidateAll,
}

impl Action {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "metadata" | "meta-data" => Action::Metadata,
            "off" => Action::Off,
            "on" => Action::On,
            "reboot" => Action::Reboot,
            "status" => Action::Status,
            "monitor" => Action::Monitor,
            "list" => Action::List,
            "list-status" => Action::ListStatus,
            "validate-all" => Action::ValidateAll,
            _ => {
                return Err(format!(
                    "{text:?} is no action; there are on, off, reboot, status, monitor, list, list-status, metadata, validate-all"
                ));
            }
        })
    }

    /// Whether it is about one member.
    pub(super) fn needs_plug(self) -> bool {
        matches!(
            self,
            Action::Off | Action::On | Action::Reboot | Action::Status
        )
    }
}

/// The options, looked at.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) action: Action,
    /// The member.
    pub(super) plug: Option<String>,
    pub(super) domain: Option<String>,
    /// Heads, `HOST:PORT`; none for the daemon of this machine.
    pub(super) heads: Vec<String>,
    tls: [Option<PathBuf>; 3],
    /// State directory of the daemon of this machine.
    pub(super) state: PathBuf,
    pub(super) methods: Vec<Method>,
    /// How long to wait for a fence to be proven.
    pub(super) power_timeout: Duration,
    /// How long to wait for other answers.
    pub(super) login_timeout: Duration,
}

impl Options {
    /// Reads `key=value` lines. Lines that are empty or begin with `#` mean nothing; unknown keys neither, as the convention
    /// wants it: cluster managers add their own.
    pub(super) fn from_lines(text: &str) -> Result<Self, String> {
        let mut values = BTreeMap::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line
                .split_once('=')
                .ok_or_else(|| format!("the line {line:?} is not of the form key=value"))?;
            if let Some(parameter) = Parameter::named(key.trim()) {
                values.insert(parameter.name, value.trim().to_owned());
            }
        }
        Self::new(&values)
    }

    /// Reads `--key=value`, `--key value` and the convention's short options.
    pub(super) fn from_arguments(arguments: &[String]) -> Result<Self, String> {
        let mut values = BTreeMap::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let unknown =
                || format!("{argument:?} is not an option; see: fence_ringfence -o metadata");
            let (parameter, value) = if let Some(long) = argument.strip_prefix("--") {
                let (name, value) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (long, None),
                };
                (Parameter::named(&name.replace('-', "_")), value)
            } else if let Some(short) = argument.strip_prefix('-') {
                let mut characters = short.chars();
                let letter = characters.next();
                let value = characters.as_str();
                let parameter = PARAMETERS
                    .iter()
                    .find(|p| p.short.is_some() && p.short == letter);
                (parameter, (!value.is_empty()).then(|| value.to_owned()))
            } else {
                return Err(unknown());
            };
            let parameter = parameter.ok_or_else(unknown)?;
            let value = match value {
                Some(value) => value,
                None => rest
                    .next()
                    .cloned()
                    .ok_or_else(|| format!("{argument} needs a value"))?,
            };
            values.insert(parameter.name, value);
        }
        Self::new(&values)
    }

    fn new(values: &BTreeMap<&'static str, String>) -> Result<Self, String> {
        let text = |name: &str| values.get(name).filter(|value| !value.is_empty());
        let path = |name: &str| text(name).map(PathBuf::from);
        let duration = |name: &str, default_seconds: u64| match text(name) {
            None => Ok(Duration::from_secs(default_seconds)),
            Some(value) => value
                .strip_suffix('s')
                .unwrap_or(value)
                .parse::<u32>()
                .map(|seconds| Duration::from_secs(u64::from(seconds)))
                .map_err(|_| format!("{name}: {value:?} is not a number of seconds")),
        };
        let action = Action::parse(text("action").map_or("reboot", String::as_str))?;
        let heads: Vec<String> = text("ip")
            .map(|ip| {
                ip.split([',', ' '])
                    .filter(|head| !head.is_empty())
                    .map(str::to_owned)
                    .collect()
            })
            .unwrap_or_default();
        for head in &heads {
            host_and_port(head).map_err(|error| format!("ip: {error}"))?;
        }
        let methods = match text("method") {
            None => Vec::new(),
            Some(all) => all
                .split(',')
                .map(|one| one.parse().map_err(|error| format!("method: {error}")))
                .collect::<Result<_, String>>()?,
        };
        let options = Self {
            action,
            plug: text("plug").cloned(),
            domain: text("domain").cloned(),
            heads,
            tls: [path("tls_cert"), path("tls_key"), path("tls_ca")],
            state: path("state").unwrap_or_else(|| crate::cli::DEFAULT_STATE.into()),
            methods,
            power_timeout: duration("power_timeout", 60)?,
            login_timeout: duration("login_timeout", 10)?,
        };
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), String> {
        if self.action == Action::Metadata {
            return Ok(());
        }
        if self.domain.is_none() {
            return Err(
                "the option domain is missing: the fence domain that the nodes are members of"
                    .into(),
            );
        }
        if self.action.needs_plug() && self.plug.is_none() {
            return Err("the option plug is missing: the member to act on (Pacemaker gives it; names that differ go into pcmk_host_map)".into());
        }
        if !self.heads.is_empty() {
            self.identity()?;
        }
        Ok(())
    }

    /// Certificate, key and authority for the heads.
    pub(super) fn identity(&self) -> Result<Identity, String> {
        match &self.tls {
            [Some(certificate), Some(key), Some(authority)] => Ok(Identity {
                certificate: certificate.clone(),
                key: key.clone(),
                authority: authority.clone(),
            }),
            _ => Err("with ip, the options tls_cert, tls_key and tls_ca are needed: PEM files; on a head, 'ringfence certificate issue DIR NAME --role fence' makes them".into()),
        }
    }
}
