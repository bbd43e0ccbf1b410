//! The actions, on every head.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::options::{Action, Options};
use crate::control::client::{Client, unexpected};
use crate::control::model::DomainMember;
use crate::control::protocol::{Answer, Request};
use crate::failure::Failure;
use crate::network::Identity;
use crate::network::client::RemoteClient;

/// What is said, and the exit status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) lines: Vec<String>,
    pub(super) status: u8,
}

impl Outcome {
    /// Success, with these lines.
    pub(super) fn said(lines: Vec<String>) -> Self {
        Self { lines, status: 0 }
    }

    fn status(status: u8, line: String) -> Self {
        Self {
            lines: vec![line],
            status,
        }
    }
}

/// Exit status of `status` for a member without access.
const STATUS_OFF: u8 = 2;

/// More than the time of an answer, for the way there and back.
const MARGIN: Duration = Duration::from_secs(5);

/// A running daemon.
pub(super) trait Head: Send {
    /// What to call it.
    fn name(&self) -> String;
    /// Asks it.
    fn ask(&mut self, request: Request, limit: Duration) -> Result<Answer, Failure>;
}

/// The daemon of this machine.
pub(super) struct Local(PathBuf);

impl Local {
    pub(super) fn new(state: &Path) -> Self {
        Self(state.to_owned())
    }
}

impl Head for Local {
    fn name(&self) -> String {
        format!("the daemon of {}", self.0.display())
    }

    fn ask(&mut self, request: Request, _: Duration) -> Result<Answer, Failure> {
        Client::connect(&self.0)?.ask(request)
    }
}

/// A daemon over the network.
pub(super) struct Remote {
    address: String,
    client: RemoteClient,
}

impl Remote {
    pub(super) fn new(address: &str, identity: &Identity) -> Result<Self, String> {
        Ok(Self {
            address: address.to_owned(),
            client: RemoteClient::new(identity).map_err(|failure| told(&failure))?,
        })
    }
}

impl Head for Remote {
    fn name(&self) -> String {
        self.address.clone()
    }

    fn ask(&mut self, request: Request, limit: Duration) -> Result<Answer, Failure> {
        self.client.ask(&self.address, request, limit)
    }
}

fn told(failure: &Failure) -> String {
    match &failure.advice {
        Some(advice) => format!("{} ({advice})", failure.message),
        None => failure.message.clone(),
    }
}

/// Carries an action out on all heads. One that fails does not keep the others from being asked: what can be fenced is.
pub(super) fn carry_out(options: &Options, heads: &mut [Box<dyn Head>]) -> Result<Outcome, String> {
    let domain = options.domain.clone().unwrap_or_default();
    let plug = options.plug.clone().unwrap_or_default();
    match options.action {
        Action::Metadata => Ok(Outcome::said(Vec::new())),
        Action::Off | Action::Reboot => {
            let request = Request::Fence {
                domain,
                member: plug.clone(),
                methods: options.methods.clone(),
                wait_ms: u64::try_from(options.power_timeout.as_millis()).unwrap_or(u64::MAX),
            };
            let limit = options.power_timeout + MARGIN;
            let answers = ask_all(heads, &request, limit)?;
            for answer in answers {
                match answer {
                    Answer::Fence(_) => {}
                    other => return Err(told(&unexpected(&other))),
                }
            }
            Ok(Outcome::status(0, format!("{plug} is fenced")))
        }
        Action::On => {
            let request = Request::Unfence {
                domain,
                member: plug.clone(),
            };
            ask_all(heads, &request, options.power_timeout + MARGIN)?;
            Ok(Outcome::status(0, format!("{plug} has access")))
        }
        Action::Status => {
            let members = members(options, heads)?;
            let of_head = |head: &Vec<DomainMember>| {
                let member = head.iter().find(|member| member.member == plug);
                member
                    .map(is_off)
                    .ok_or_else(|| format!("{domain} has no member {plug}"))
            };
            let off: Vec<bool> = members.iter().map(of_head).collect::<Result<_, _>>()?;
            // Off is what is proven on every head.
            let off = off.into_iter().all(|off| off);
            Ok(if off {
                Outcome::status(STATUS_OFF, format!("{plug} is off"))
            } else {
                Outcome::status(0, format!("{plug} is on"))
            })
        }
        Action::List | Action::ListStatus => {
            let members = members(options, heads)?;
            let first = members.into_iter().next().unwrap_or_default();
            let line = |member: &DomainMember| {
                let name = &member.member;
                match (options.action, is_off(member)) {
                    (Action::List, _) => format!("{name},{name}"),
                    (_, true) => format!("{name},{name},off"),
                    (_, false) => format!("{name},{name},on"),
                }
            };
            Ok(Outcome::said(first.iter().map(line).collect()))
        }
        Action::Monitor => {
            members(options, heads)?;
            Ok(Outcome::said(Vec::new()))
        }
        // The options have been looked at; files that cannot be read are found when the heads are made.
        Action::ValidateAll => Ok(Outcome::said(Vec::new())),
    }
}

fn is_off(member: &DomainMember) -> bool {
    member
        .fence
        .as_ref()
        .is_some_and(|fence| fence.proven.is_some())
}

/// The members as each head lists them.
fn members(
    options: &Options,
    heads: &mut [Box<dyn Head>],
) -> Result<Vec<Vec<DomainMember>>, String> {
    let request = Request::MemberList {
        domain: options.domain.clone().unwrap_or_default(),
    };
    let answers = ask_all(heads, &request, options.login_timeout)?;
    let members = answers.into_iter().map(|answer| match answer {
        Answer::Members(members) => Ok(members),
        other => Err(told(&unexpected(&other))),
    });
    members.collect()
}

/// Asks all heads at once; all must do it.
fn ask_all(
    heads: &mut [Box<dyn Head>],
    request: &Request,
    limit: Duration,
) -> Result<Vec<Answer>, String> {
    let results: Vec<Result<Answer, String>> = std::thread::scope(|scope| {
        let asked: Vec<_> = heads
            .iter_mut()
            .map(|head| {
                scope.spawn(move || {
                    head.ask(request.clone(), limit)
                        .map_err(|failure| format!("{}: {}", head.name(), told(&failure)))
                })
            })
            .collect();
        let results = asked.into_iter().map(|asked| {
            asked
                .join()
                .unwrap_or_else(|_| Err("a thread of the agent panicked".into()))
        });
        results.collect()
    });
    let (mut answers, mut failures) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(answer) => answers.push(answer),
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() {
        Ok(answers)
    } else {
        Err(failures.join("; "))
    }
}
