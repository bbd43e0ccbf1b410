//! `ringfence node status`: the question and the answer over a socket.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use fencing::mailbox::Status;
use fencing::node::Node;
use serde::{Deserialize, Serialize};

use crate::error::NodeError;
use crate::run::Input;

/// What a node tells of itself. A stable schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Name of the domain.
    pub domain: String,
    /// This member.
    pub member: String,
    /// What it is doing.
    pub status: Status,
    /// It may use the volumes, as far as it knows.
    pub access: bool,
    /// The domain's epoch that it knows.
    pub epoch: u64,
    /// For how long the head has not been seen to go on through the mailbox, in milliseconds.
    pub storage_silent_ms: u64,
    /// The view that its group has adopted.
    pub view: Option<ViewReport>,
    /// Its group: members of whom every two have a link.
    pub group: Vec<String>,
    /// Whom it claims for while it races.
    pub claim: Option<Vec<String>>,
    /// Members with a key that it must have a link with before it registers one itself.
    #[serde(default)]
    pub waits_for: Vec<String>,
    /// All members.
    pub members: Vec<MemberReport>,
    /// The last verdict of a race.
    pub verdict: Option<VerdictReport>,
}

/// A view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewReport {
    /// Its number.
    pub number: u64,
    /// Who published it.
    pub master: String,
    /// Who is in it.
    pub members: Vec<String>,
}

/// A member, as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Its name.
    pub name: String,
    /// There is a link in both directions; a member has one with itself.
    pub link: bool,
    /// It has access and is not in this member's group.
    pub missing: bool,
    /// It has a key, the head says.
    pub registered: bool,
    /// It has no access since this epoch, the head says.
    pub fenced: Option<u64>,
    /// Its heartbeat on storage has stopped, the head says.
    pub suspect: bool,
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictReport {
    /// The epoch that began with it.
    pub epoch: u64,
    /// Who goes on; nobody won when it is empty.
    pub winners: Vec<String>,
    /// Who was fenced.
    pub fenced: Vec<String>,
}

impl StatusReport {
    /// Of a node; `None` before it has read the mailbox.
    pub fn of(node: &Node, member: &str) -> Option<Self> {
        let head = node.head()?;
        let own = node.slot();
        let (links, missing) = (node.links(), node.missing());
        let view = node.view().map(|view| ViewReport {
            number: view.number,
            master: head.names(fencing::SlotSet::one(view.master)).concat(),
            members: head.names(view.members),
        });
        let members = head.members.iter().map(|(slot, known)| MemberReport {
            name: known.name.clone(),
            link: *slot == own || links.contains(*slot),
            missing: missing.contains(*slot),
            registered: known.registered,
            fenced: known.fenced,
            suspect: known.suspect,
        });
        Some(Self {
            domain: head.name.clone(),
            member: member.to_owned(),
            status: node.status(),
            access: node.has_access(),
            epoch: head.epoch,
            storage_silent_ms: node.storage_silent_ms(),
            view,
            group: head.names(node.group()),
            claim: node.claim().map(|claim| head.names(claim.group)),
            waits_for: head.names(node.waits_for()),
            members: members.collect(),
            verdict: head.verdict.as_ref().map(|verdict| VerdictReport {
                epoch: verdict.epoch,
                winners: head.names(verdict.winners),
                fenced: head.names(verdict.fenced),
            }),
        })
    }

    fn text(&self) -> String {
        let name = |status: Status| match status {
            Status::Starting => "starting",
            Status::Member => "member",
            Status::Racing => "racing",
            Status::Lost => "lost",
            Status::Fenced => "fenced",
            Status::Left => "left",
        };
        let mut text = format!(
            "{} in domain {}: {}, {}\nepoch {}, head seen {} ms ago\n",
            self.member,
            self.domain,
            name(self.status),
            if self.access {
                "has access"
            } else {
                "no access"
            },
            self.epoch,
            self.storage_silent_ms,
        );
        match &self.view {
            Some(view) => {
                text += &format!(
                    "view {} by {}: {}\n",
                    view.number,
                    view.master,
                    view.members.join(", ")
                )
            }
            None => text += "no view yet\n",
        }
        if let Some(claim) = &self.claim {
            text += &format!("races for: {}\n", claim.join(", "));
        }
        if !self.waits_for.is_empty() {
            text += &format!(
                "no key yet: it waits for a link to {}\n",
                self.waits_for.join(", ")
            );
        }
        if let Some(verdict) = &self.verdict {
            let list = |names: &[String]| match names {
                [] => "nobody".to_owned(),
                names => names.join(", "),
            };
            text += &format!(
                "last race, epoch {}: {} won, {} fenced\n",
                verdict.epoch,
                list(&verdict.winners),
                list(&verdict.fenced)
            );
        }
        for member in &self.members {
            let mut words = vec![if member.link { "linked" } else { "no link" }.to_owned()];
            words.extend(
                member
                    .fenced
                    .map(|epoch| format!("fenced in epoch {epoch}")),
            );
            let flags = [
                (!member.registered, "no key"),
                (member.missing, "missing"),
                (member.suspect, "suspect"),
            ];
            words.extend(
                flags
                    .iter()
                    .filter(|(is, _)| *is)
                    .map(|(_, word)| (*word).to_owned()),
            );
            text += &format!("  {:<20} {}\n", member.name, words.join(", "));
        }
        text
    }
}

/// Asks the node at a socket and prints what it says.
///
/// # Errors
/// [`NodeError::NoNode`].
pub fn print_status(socket: &Path, json: bool) -> Result<(), NodeError> {
    let no_node = |error| NodeError::NoNode {
        path: socket.to_owned(),
        error,
    };
    let mut text = String::new();
    let mut stream = UnixStream::connect(socket).map_err(no_node)?;
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .and_then(|()| stream.read_to_string(&mut text))
        .map_err(no_node)?;
    let report: Option<StatusReport> =
        serde_json::from_str(&text).map_err(|error| no_node(io::Error::other(error)))?;
    let shown = match report {
        _ if json => text.trim().to_owned(),
        Some(report) => report.text().trim_end().to_owned(),
        None => "starting: the mailbox has not been read yet".to_owned(),
    };
    let mut out = io::stdout().lock();
    // Whoever reads this may have gone.
    let _ = writeln!(out, "{shown}");
    Ok(())
}

/// Hears questions at a socket, and has them answered by the loop.
///
/// # Errors
/// When the socket cannot be made, or another node has it.
pub fn serve(path: &Path, queue: &Sender<Input>) -> Result<(), NodeError> {
    let fault = |error| NodeError::File {
        what: "the socket of status",
        path: path.display().to_string(),
        error,
    };
    if UnixStream::connect(path).is_ok() {
        return Err(fault(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another node runs here; give this one a --socket of its own",
        )));
    }
    if let Some(directory) = path.parent() {
        crate::identity::make_directory(directory).map_err(fault)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(fault)?;
    let queue = queue.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if queue.send(Input::Question(stream)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Answers a question. A report is shorter than the socket's buffer, so a slow reader holds nobody up.
pub fn answer(mut stream: UnixStream, report: Option<&StatusReport>) {
    if let Ok(mut text) = serde_json::to_vec(&report) {
        text.push(b'\n');
        let ready = stream.set_nonblocking(true);
        let _ = ready.and_then(|()| stream.write_all(&text));
    }
}
