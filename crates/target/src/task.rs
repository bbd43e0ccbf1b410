//! A task: one command of one nexus, from its arrival to its end.

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use reservation::access::Row;
use scsi::cdb::{Cdb, CommandId};
use scsi::sam::TaskAttribute;
use scsi::sense::AdditionalSense;
use scsi::{Sense, Status};
use volume::block_device::BlockDevice;

use crate::commands::plan::Plan;
use crate::commands::{self, Reply, window};
use crate::gate::{GateWord, Grant};
use crate::range_lock::RangeGuard;
use crate::response::{Failure, Outcome, Response};
use crate::session::Attached;
use crate::task_set::{AbortedBy, TaskSlot};
use crate::unit::LogicalUnit;
use crate::unit::change::column_refusal;

/// A command as it arrives at a session.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Names the task within the session (Initiator Task Tag).
    pub tag: u32,
    /// The LUN field.
    pub lun: [u8; 8],
    /// The CDB, possibly padded.
    pub cdb: &'a [u8],
    /// The task attribute.
    pub attribute: TaskAttribute,
    /// Bytes that the initiator has to send (Expected Data Transfer Length of a write; 0 for none).
    pub data_out_bytes: u64,
    /// Bytes that the initiator expects (Expected Data Transfer Length of a read; 0 for none).
    pub data_in_bytes: u64,
}

/// A task in the task set. Dropping it before [`Task::execute`] ends it without a response.
pub struct Task<D: BlockDevice> {
    place: Place<D>,
    pub(crate) cdb: Cdb,
    pub(crate) id: CommandId,
    pub(crate) row: &'static Row,
    pub(crate) tag: u32,
    pub(crate) plan: Plan,
    /// What the initiator expects to be sent.
    pub(crate) data_in_bytes: u64,
}

/// The place in the task set, given back when dropped.
struct Place<D: BlockDevice> {
    attached: Arc<Attached<D>>,
    slot: TaskSlot,
}

impl<D: BlockDevice> Drop for Place<D> {
    fn drop(&mut self) {
        self.attached.nexus.tasks.end(&mut self.slot);
    }
}

impl<D: BlockDevice> Task<D> {
    /// Takes a command of a nexus that the logical unit knows: every check that can be made before data is
    /// transferred, in the order of SAM-5 5.3 and SPC-4 4.3, then a place in the task set.
    pub(crate) fn take(
        attached: &Arc<Attached<D>>,
        request: &Request<'_>,
    ) -> Result<Self, Refused> {
        let unit = &attached.unit;
        let nexus = &attached.nexus;
        if request.attribute == TaskAttribute::Aca {
            // SAM-5 8.6.5: there is no ACA condition, ever.
            return Err(Sense::illegal_request(AdditionalSense::INVALID_MESSAGE_ERROR).into());
        }
        let word = nexus.gate.word();
        let named = CommandId::of(request.cdb);
        if word.has(GateWord::ATTENTION)
            && !named.is_ok_and(commands::ignores_unit_attention)
            && let Some(attention) = nexus.take_attention()
        {
            return Err(attention.sense().into());
        }
        let id = named?;
        let row = reservation::access::row_of(request.cdb)
            .ok_or_else(|| Sense::invalid_field_in_cdb(1, None))?;
        judge(attached, id, row, word)?;
        let cdb = Cdb::decode_as(id, request.cdb)?;
        if word.has(GateWord::WINDOWED) && row.writes_medium() {
            window::contains(attached, Some(&cdb))?;
        }
        let plan = Plan::of(unit, &cdb, request)?;
        let slot = nexus
            .tasks
            .add(unit.lun, request.tag, request.attribute)
            .ok_or(Failure::Status(Status::TaskSetFull))?;
        Ok(Self {
            place: Place {
                attached: attached.clone(),
                slot,
            },
            cdb,
            id,
            row,
            tag: request.tag,
            plan,
            data_in_bytes: request.data_in_bytes,
        })
    }

    /// Bytes that the command wants from the initiator; 0: it can be executed at once. When the initiator announced
    /// fewer, the command is content with those.
    pub fn data_out_bytes(&self) -> u64 {
        self.plan.data_out_bytes
    }

    /// The tag it was given.
    pub fn tag(&self) -> u32 {
        self.tag
    }

    /// Has the task been aborted while it waited for its data? Then [`Task::execute`] ends it at once.
    pub fn is_aborted(&self) -> bool {
        self.aborted_by().is_some()
    }

    fn aborted_by(&self) -> Option<AbortedBy> {
        self.place.attached.nexus.tasks.aborted(&self.place.slot)
    }

    pub(crate) fn attached(&self) -> &Arc<Attached<D>> {
        &self.place.attached
    }

    /// The data of the command, cut to what it asked for; an error when the transport delivered less than was
    /// announced.
    pub(crate) fn data(&self, mut data: Bytes) -> Result<Bytes, Failure> {
        // At most a parameter list or MAXIMUM TRANSFER LENGTH, twice for COMPARE AND WRITE.
        let available = self.plan.data_out_available_bytes as usize;
        if data.len() < available {
            return Err(Sense::aborted_command(AdditionalSense::DATA_PHASE_ERROR).into());
        }
        data.truncate(available);
        Ok(data)
    }

    /// Waits until the task is aborted.
    pub(crate) async fn until_aborted(&self) {
        let place = &self.place;
        place.attached.nexus.tasks.until_aborted(&place.slot).await;
    }

    /// Executes the command with its data. Must be driven to its end, see the crate's contract.
    pub async fn execute(self, data: BytesMut) -> Outcome {
        let result = self.run(data).await;
        let wanted = self.plan.data_out_bytes;
        let by = match (&result, self.aborted_by()) {
            (_, Some(by)) => Some(by),
            (Err(Failure::Aborted), None) => Some(AbortedBy::Own),
            _ => None,
        };
        match by {
            Some(AbortedBy::Own) => return Outcome::Aborted,
            Some(AbortedBy::Other) if self.attached().unit.mode.task_aborted_status() => {
                return Outcome::Response(Response::status(Status::TaskAborted));
            }
            Some(AbortedBy::Other) => return Outcome::Aborted,
            None => {}
        }
        let mut response = match result {
            Ok(reply) => reply.into_response(),
            Err(failure) => failure.into_response(self.attached().unit.sense_format()),
        };
        if wanted > 0 {
            response.transfer_length_bytes = Some(wanted);
        }
        Outcome::Response(response)
    }

    async fn run(&self, data: BytesMut) -> Result<Reply, Failure> {
        let place = &self.place;
        place.attached.nexus.tasks.turn(&place.slot).await;
        if self.is_aborted() {
            return Err(Failure::Aborted);
        }
        match self.cdb {
            Cdb::Read(transfer) => commands::read_write::read(self, &transfer).await,
            Cdb::Write(transfer) => {
                commands::read_write::write(self, &transfer, data.freeze()).await
            }
            _ => Box::pin(commands::dispatch(self, data)).await,
        }
    }

    /// Enters the gate: from here until the token is dropped the task counts as in flight.
    pub(crate) fn admit(&self) -> Result<Admitted<'_, D>, Failure> {
        Admitted::new(self, self.attached(), self.id, self.row)
    }

    /// Judges the task without entering the gate: for commands that do not touch the medium. Those that wait for the
    /// logical unit's `change` lock have to ask again when they hold it: meanwhile the task may have been aborted, its
    /// nexus fenced or taken down, and that may have been answered.
    pub(crate) fn allowed(&self) -> Result<(), Failure> {
        if self.is_aborted() {
            return Err(Failure::Aborted);
        }
        let (attached, word) = (self.attached(), self.attached().nexus.gate.word());
        judge(attached, self.id, self.row, word)?;
        if word.has(GateWord::WINDOWED) && self.row.writes_medium() {
            window::contains(attached, Some(&self.cdb))?;
        }
        Ok(())
    }
}

/// Why a command was refused before it became a task, and how many bytes it would have transferred.
pub(crate) struct Refused {
    pub(crate) failure: Failure,
    pub(crate) transfer_length_bytes: Option<u64>,
}

impl<T: Into<Failure>> From<T> for Refused {
    fn from(failure: T) -> Self {
        Self {
            failure: failure.into(),
            transfer_length_bytes: None,
        }
    }
}

/// May this nexus send this command now, wherever it writes?
fn judge<D: BlockDevice>(
    attached: &Attached<D>,
    id: CommandId,
    row: &Row,
    word: GateWord,
) -> Result<(), Failure> {
    if word.grant() == Grant::None || word.has(GateWord::GONE) {
        return Err(Sense::logical_unit_not_supported().into());
    }
    let unit = &attached.unit;
    if !row.permits(word.column()) {
        return Err(column_refusal(word.column()).unwrap_or_else(|| unit.not_known()));
    }
    if word.has(GateWord::NOT_READY)
        && let Some(sense) = unit.condition.sense()
        && !commands::runs_while(id, &unit.condition)
    {
        return Err(sense.into());
    }
    if word.has(GateWord::WINDOWED) {
        window::permits(id, row)?;
    }
    if word.grant() == Grant::ReadOnly && (row.writes_medium() || commands::needs_write_grant(id)) {
        return Err(Sense::write_protected().into());
    }
    if word.has(GateWord::WRITE_PROTECTED) && row.writes_medium() {
        return Err(Sense::software_write_protected().into());
    }
    Ok(())
}

/// A task that has entered the gate of its nexus on a logical unit, for a command: its own, or one that stands for a
/// part of it.
pub(crate) struct Admitted<'a, D: BlockDevice> {
    task: &'a Task<D>,
    attached: &'a Attached<D>,
    id: CommandId,
    row: &'static Row,
    epoch: u8,
    /// An I/O has been started and not completed.
    busy: Cell<bool>,
}

impl<'a, D: BlockDevice> Admitted<'a, D> {
    /// Enters the gate of `attached`, a logical unit of the same nexus, as if `id` had been sent there.
    pub(crate) fn enter(
        task: &'a Task<D>,
        attached: &'a Attached<D>,
        id: CommandId,
    ) -> Result<Self, Failure> {
        let descriptor = id.descriptor();
        let selector = descriptor.service_action.unwrap_or(0);
        let row = reservation::access::row(descriptor.operation_code, selector.into())
            .ok_or_else(Sense::invalid_operation_code)?;
        Self::new(task, attached, id, row)
    }

    fn new(
        task: &'a Task<D>,
        attached: &'a Attached<D>,
        id: CommandId,
        row: &'static Row,
    ) -> Result<Self, Failure> {
        let (epoch, word) = attached.nexus.gate.enter();
        let admitted = Self {
            task,
            attached,
            id,
            row,
            epoch,
            busy: Cell::new(false),
        };
        admitted.judge(word)?;
        Ok(admitted)
    }

    fn judge(&self, word: GateWord) -> Result<(), Failure> {
        if self.task.is_aborted() {
            return Err(Failure::Aborted);
        }
        judge(self.attached, self.id, self.row, word)?;
        if word.has(GateWord::WINDOWED) && self.row.writes_medium() {
            // What stands for a part of another command has no CDB of its own: nothing is copied into a mailbox.
            let own =
                self.id == self.task.id && std::ptr::eq(self.attached, &**self.task.attached());
            window::contains(self.attached, own.then_some(&self.task.cdb))?;
        }
        Ok(())
    }

    /// The logical unit.
    pub(crate) fn unit(&self) -> &Arc<LogicalUnit<D>> {
        &self.attached.unit
    }

    /// Shares the blocks with other ordinary transfers, against COMPARE AND WRITE and the like.
    pub(crate) async fn share(&self, lba: u64, blocks: u64) -> Option<RangeGuard<'_>> {
        let ranges = &self.unit().ranges;
        if ranges.is_on() {
            ranges.shared(lba, blocks).await
        } else {
            None
        }
    }

    /// Looks again, between the parts of a long command.
    pub(crate) fn recheck(&self) -> Result<(), Failure> {
        self.judge(self.attached.nexus.gate.word())
    }

    /// Runs one device operation.
    pub(crate) async fn io<T>(&self, operation: impl Future<Output = T>) -> T {
        self.busy.set(true);
        let result = operation.await;
        self.busy.set(false);
        result
    }
}

impl<D: BlockDevice> Drop for Admitted<'_, D> {
    fn drop(&mut self) {
        if self.busy.get() {
            // The operation may still be running in the device. To leave the gate now would let a fence be
            // answered before it lands, so the fence has to wait for ever.
            tracing::error!("a task was dropped while its I/O was in flight");
            return;
        }
        self.attached.nexus.gate.leave(self.epoch);
    }
}
