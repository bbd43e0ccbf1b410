//! Text in the full feature phase: SendTargets, and MaxRecvDataSegmentLength (RFC 7143 11.10, 11.11, Appendix C).

use super::connection::{Connection, Phase};
use super::event::{Event, SendTargets};
use super::receive::Request;
use super::response::DiscoveredTarget;
use crate::negotiate::{NOT_UNDERSTOOD, Negotiation, REJECT};
use crate::parameters::SessionType;
use crate::pdu::{self, RejectReason};
use crate::text::{self, MAX_TEXT_BYTES};

/// A text exchange under way; there is at most one.
#[derive(Debug, Default)]
pub(super) struct TextExchange {
    /// The initiator's tag, while the exchange is open.
    itt: Option<u32>,
    /// The tag that the initiator must send back to continue.
    ttt: Option<u32>,
    /// Text that came with the C bit.
    gathered: Vec<u8>,
    /// Answers that wait for the list of targets.
    prepared: Vec<u8>,
    /// True while the application is making that list.
    asked: bool,
    /// True when the last request had the F bit: the answer may have it too.
    final_request: bool,
    /// Text that did not fit into the last response.
    rest: Vec<u8>,
}

impl Connection {
    pub(super) fn text_request(&mut self, request: &Request) {
        let pdu = pdu::TextRequest(request.header);
        let goes_on = pdu.has_flag(pdu::CONTINUE);
        if pdu.itt() == pdu::RESERVED_TAG || (goes_on && pdu.has_flag(pdu::FINAL)) {
            return self.reject(RejectReason::InvalidPduField, &request.header);
        }
        if self.text.asked {
            // RFC 7143 11.10.3: one text exchange at a time.
            return self.reject(RejectReason::ProtocolError, &request.header);
        }
        if pdu.ttt() == pdu::RESERVED_TAG {
            self.text = TextExchange {
                itt: Some(pdu.itt()),
                ..TextExchange::default()
            };
        } else if self.text.ttt != Some(pdu.ttt()) || self.text.itt != Some(pdu.itt()) {
            return self.reject(RejectReason::InvalidPduField, &request.header);
        }
        self.text.final_request = pdu.has_flag(pdu::FINAL);
        if self.text.gathered.len() + request.data.len() > MAX_TEXT_BYTES {
            self.text = TextExchange::default();
            return self.reject(RejectReason::LongOperationReject, &request.header);
        }
        self.text.gathered.extend_from_slice(&request.data);
        if goes_on {
            return self.send_text(Vec::new());
        }
        if !self.text.rest.is_empty() {
            let rest = std::mem::take(&mut self.text.rest);
            return self.send_text(rest);
        }
        let gathered = std::mem::take(&mut self.text.gathered);
        match text::parse(&gathered) {
            Ok(pairs) => self.answer_text(&pairs, request),
            Err(_) => {
                self.text = TextExchange::default();
                self.reject(RejectReason::ProtocolError, &request.header);
            }
        }
    }

    fn answer_text(&mut self, pairs: &[(&str, &str)], request: &Request) {
        let mut answers = Vec::new();
        let mut send_targets = None;
        let mut understood = pairs.is_empty();
        for (key, value) in pairs {
            match *key {
                "SendTargets" if send_targets.is_none() => {
                    send_targets = self.selection(value);
                    if send_targets.is_none() {
                        self.text = TextExchange::default();
                        return self.reject(RejectReason::ProtocolError, &request.header);
                    }
                    understood = true;
                }
                // RFC 7143 13.12: may be declared at any time.
                "MaxRecvDataSegmentLength" => {
                    let length = text::number(value).and_then(|n| u32::try_from(n).ok());
                    match length {
                        Some(length @ 512..=pdu::MAX_DATA_SEGMENT_BYTES) => {
                            self.parameters.peer_max_recv_data_segment_length_bytes = length;
                        }
                        _ => text::put(&mut answers, key, REJECT),
                    }
                    understood = true;
                }
                "SendTargets" => text::put(&mut answers, key, REJECT),
                _ if Negotiation::knows(key) => {
                    text::put(&mut answers, key, REJECT);
                    understood = true;
                }
                _ => text::put(&mut answers, key, NOT_UNDERSTOOD),
            }
        }
        if !understood {
            // Nothing in it meant anything: libiscsi gives up its session at text it did not expect, and takes a
            // Reject for what it is.
            self.text = TextExchange::default();
            return self.reject(RejectReason::ProtocolError, &request.header);
        }
        match send_targets {
            Some(selection) => {
                self.text.prepared = answers;
                self.text.asked = true;
                self.events.push_back(Event::SendTargets(selection));
            }
            None => self.send_text(answers),
        }
    }

    /// What a value of SendTargets selects (RFC 7143 Appendix C).
    fn selection(&self, value: &str) -> Option<SendTargets> {
        let discovery = self.parameters.session_type == SessionType::Discovery;
        match value {
            // In a normal session All is not required to work; libiscsi's tests use it there.
            "All" => Some(SendTargets::All),
            "" if !discovery => self.target_name.clone().map(SendTargets::Named),
            name if ["iqn.", "eui.", "naa."]
                .iter()
                .any(|kind| name.starts_with(kind)) =>
            {
                Some(SendTargets::Named(name.to_owned()))
            }
            _ => None,
        }
    }

    /// Answers [`Event::SendTargets`].
    pub fn answer_send_targets(&mut self, targets: &[DiscoveredTarget]) {
        if !self.text.asked || !matches!(self.phase, Phase::FullFeature) {
            return;
        }
        self.text.asked = false;
        let mut answers = std::mem::take(&mut self.text.prepared);
        for target in targets {
            text::put(&mut answers, "TargetName", &target.name);
            for (address, tag) in &target.portals {
                text::put(&mut answers, "TargetAddress", &format!("{address},{tag}"));
            }
        }
        self.send_text(answers);
    }

    /// Sends text, as much as the initiator takes at once. The F bit answers only an F bit (RFC 7143 11.11.1).
    fn send_text(&mut self, mut text: Vec<u8>) {
        let Some(itt) = self.text.itt else {
            return;
        };
        let limit = self.parameters.peer_max_recv_data_segment_length_bytes as usize;
        let mut flags = pdu::FINAL;
        if text.len() > limit {
            self.text.rest = text.split_off(limit);
            flags = pdu::CONTINUE;
        } else if !self.text.final_request {
            flags = 0;
        }
        let ttt = match flags {
            pdu::FINAL => {
                self.text = TextExchange::default();
                pdu::RESERVED_TAG
            }
            _ => {
                let ttt = self.new_ttt();
                self.text.ttt = Some(ttt);
                ttt
            }
        };
        let response = pdu::TextResponse::new()
            .set_flags(flags)
            .set_itt(itt)
            .set_ttt(ttt);
        self.send_copied(response.0, &text);
    }
}
