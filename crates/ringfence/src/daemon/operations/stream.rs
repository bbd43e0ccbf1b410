//! The event log as a stream.

use std::io;
use std::time::Duration;

use jiff::Timestamp;

use super::Operations;
use crate::control::protocol::Frame;
use crate::control::server::Sink;
use crate::events::reader::Reader;
use crate::failure::Failure;

/// How often a quiet stream looks whether it should end.
const LOOK: Duration = Duration::from_secs(1);

impl Operations {
    pub(super) fn events(
        &self,
        since: Option<Timestamp>,
        follow: bool,
        sink: &mut dyn Sink,
    ) -> Result<(), Failure> {
        let log = self.audit.log();
        // What happened before the question is part of the answer.
        log.settle();
        let mut reader = Reader::new(log.directory(), log.limits().rotated_files, since);
        loop {
            let seen = log.written();
            let sent = reader.poll(|event| sink.send(&Frame::Event(event)));
            match sent {
                Ok(()) => {}
                // The client has enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => {
                    return Err(Failure::failed(format!(
                        "the event log cannot be read: {error}"
                    )));
                }
            }
            if !follow || !log.wait(seen, LOOK) || sink.is_gone() {
                return Ok(());
            }
        }
    }
}
