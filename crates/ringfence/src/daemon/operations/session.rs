//! iSCSI sessions.

use std::time::{Duration, Instant};

use super::Operations;
use crate::control::model::Session;
use crate::daemon::audit::{isid_text, party_of};
use crate::events::{Operator, What};
use crate::failure::Failure;

/// How long `session drop` waits for the end of the session: its I/O in flight is drained first.
const DROP_PATIENCE: Duration = Duration::from_secs(30);

impl Operations {
    pub(super) fn sessions(&self) -> Vec<Session> {
        let mut sessions: Vec<Session> = self
            .service
            .sessions()
            .into_iter()
            .map(|session| (self.domains.member_of(&session.initiator), session))
            .map(|(member, session)| Session {
                fenced: member.as_ref().is_some_and(|(_, fenced)| *fenced),
                member: member.map(|(member, _)| member),
                id: session.id,
                isid: isid_text(session.isid),
                tsih: session.tsih,
                kind: if session.discovery {
                    "discovery"
                } else {
                    "normal"
                }
                .to_owned(),
                target_port: session.target_port,
                portal: session.portal.to_string(),
                address: session.peer.to_string(),
                auth: session.auth.to_owned(),
                since: session.since,
                initiator: session.initiator,
            })
            .collect();
        sessions.sort_by_key(|session| session.id);
        sessions
    }

    pub(super) fn session_drop(&self, id: u64, operator: &Operator) -> Result<(), Failure> {
        let missing = || {
            Failure::not_found(format!("there is no session {id}"))
                .advise("'ringfence session list' shows them")
        };
        let session = self
            .service
            .sessions()
            .into_iter()
            .find(|session| session.id == id)
            .ok_or_else(missing)?;
        if !self.service.drop_session(id) {
            return Err(missing());
        }
        self.audit.log().record(What::SessionDropped {
            session: id,
            party: party_of(&session),
            by: operator.clone(),
        });
        let deadline = Instant::now() + DROP_PATIENCE;
        while self
            .service
            .sessions()
            .iter()
            .any(|session| session.id == id)
        {
            if Instant::now() > deadline {
                return Err(Failure::failed(format!(
                    "session {id} was told to end, but its I/O has not after {} s",
                    DROP_PATIENCE.as_secs()
                ))
                .advise("a device may hang: see the daemon's log and 'ringfence device list'"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}
