//! The end of a task: Data-In, status, residuals (RFC 7143 11.4, 11.7).

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::connection::Connection;
use super::response::{ScsiResponse, UnknownTask};
use super::task::Task;
use crate::pdu::{self, DataIn};

/// Residual flag bits, the same in SCSI Response and Data-In, and the count in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Residual {
    flag: u8,
    count: u32,
}

impl Residual {
    /// RFC 7143 11.4.5: what the command would have transferred against what the initiator expected.
    fn new(expected: u32, actual: u64) -> Self {
        let expected = u64::from(expected);
        let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        match actual.cmp(&expected) {
            std::cmp::Ordering::Equal => Self::default(),
            std::cmp::Ordering::Greater => Self {
                flag: DataIn::OVERFLOW,
                count: count(actual - expected),
            },
            std::cmp::Ordering::Less => Self {
                flag: DataIn::UNDERFLOW,
                count: count(expected - actual),
            },
        }
    }
}

impl Connection {
    /// Ends a task. Data still under way to the target is swallowed.
    ///
    /// # Errors
    /// The task is gone; nothing is sent.
    pub fn respond(&mut self, itt: u32, response: ScsiResponse) -> Result<(), UnknownTask> {
        let task = self.remove_task(itt).ok_or(UnknownTask)?;
        let total: u64 = response.data_in.iter().map(|part| part.len() as u64).sum();
        let actual = response
            .transfer_length_bytes
            .unwrap_or(if task.read && task.wanted == 0 {
                total
            } else {
                task.wanted
            });
        let residual = Residual::new(task.expected, actual);
        let to_send = if task.read {
            u64::from(task.expected).min(total) as u32
        } else {
            0
        };
        // RFC 7143 11.7.3: status travels with the last Data-In when there is no sense data to go with it.
        let collapse = to_send > 0 && response.sense.is_empty();
        let status = collapse.then_some((response.status, residual));
        let data_pdus = self.send_data_in(itt, response.data_in, to_send, status);
        if !collapse {
            let header = pdu::ScsiResponse::new()
                .set_flags(pdu::FINAL | residual.flag)
                .set_status(response.status)
                .set_itt(itt)
                .set_residual_bytes(residual.count)
                .set_exp_data_sn(data_pdus.wrapping_add(task.next_r2t_sn));
            let sense = sense_segment(&response.sense);
            self.send_copied(header.0, &sense);
        }
        self.grant_budget();
        Ok(())
    }

    /// Forgets a task without a response (it was aborted by task management, or by another nexus with TAS=0).
    /// Returns false when it was gone already.
    pub fn abort_task(&mut self, itt: u32) -> bool {
        let existed = self.remove_task(itt).is_some();
        self.grant_budget();
        existed
    }

    fn remove_task(&mut self, itt: u32) -> Option<Task> {
        let task = self.tasks.remove(&itt)?;
        self.charged -= task.charged;
        Some(task)
    }

    /// Sends the first `length` bytes of the data in as many PDUs as the initiator's MaxRecvDataSegmentLength and
    /// MaxBurstLength ask for; returns how many.
    fn send_data_in(
        &mut self,
        itt: u32,
        data: SmallVec<[Bytes; 1]>,
        length: u32,
        status: Option<(u8, Residual)>,
    ) -> u32 {
        let max_segment = self.parameters.peer_max_recv_data_segment_length_bytes;
        let max_burst = self.parameters.max_burst_length_bytes;
        let mut parts = Parts { data, index: 0 };
        let (mut offset, mut burst, mut data_sn) = (0, 0, 0u32);
        while offset < length {
            let segment = max_segment.min(length - offset).min(max_burst - burst);
            burst += segment;
            let last = offset + segment == length;
            let mut pdu = DataIn::new()
                .set_itt(itt)
                .set_ttt(pdu::RESERVED_TAG)
                .set_data_sn(data_sn)
                .set_buffer_offset_bytes(offset);
            let mut flags = 0;
            if last || burst == max_burst {
                flags |= pdu::FINAL;
                burst = 0;
            }
            let status = status.filter(|_| last);
            if let Some((status, residual)) = status {
                flags |= DataIn::STATUS | residual.flag;
                pdu = pdu.set_status(status).set_residual_bytes(residual.count);
            }
            let mut header = pdu.set_flags(flags).0;
            self.stamp(&mut header, status.is_some());
            if status.is_none() {
                header[24..28].fill(0); // StatSN is reserved without S
            }
            let slices = parts.take(segment as usize);
            self.out.push(header, &[], slices.into_iter());
            offset += segment;
            data_sn += 1;
        }
        data_sn
    }
}

/// Data that is cut off the front of a list of chunks.
struct Parts {
    data: SmallVec<[Bytes; 1]>,
    index: usize,
}

impl Parts {
    /// The next `length` bytes, which the list has.
    fn take(&mut self, mut length: usize) -> SmallVec<[Bytes; 1]> {
        let mut out = SmallVec::new();
        while length > 0 {
            let Some(part) = self.data.get_mut(self.index) else {
                break;
            };
            if part.len() <= length {
                length -= part.len();
                self.index += 1;
                out.push(std::mem::take(part));
            } else {
                out.push(part.split_to(length));
                length = 0;
            }
        }
        out
    }
}

/// Sense data with its length in front, as SCSI Response and Asynchronous Message carry it (RFC 7143 11.4.7); empty for
/// none.
pub(super) fn sense_segment(sense: &[u8]) -> BytesMut {
    let mut segment = BytesMut::new();
    if !sense.is_empty() {
        // SPC-4 4.5: sense data is at most 252 bytes.
        let sense = &sense[..sense.len().min(252)];
        segment.extend_from_slice(&(sense.len() as u16).to_be_bytes());
        segment.extend_from_slice(sense);
    }
    segment
}
