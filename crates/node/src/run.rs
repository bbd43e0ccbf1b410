//! The loop.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use fencing::mailbox::{HeadArea, MemberSlot, Status};
use fencing::node::{Event, Heartbeat, Hook, LostCause, MailboxRead, Node, Output, Settings};
use fencing::{Secret, SlotSet};
use rustix::time::{ClockId, clock_gettime};
use signal_hook::consts::{SIGINT, SIGTERM};
use uuid::Uuid;

use crate::args::NodeArgs;
use crate::disk::{Disk, DiskError};
use crate::error::NodeError;
use crate::hooks::{self, HookRun};
use crate::network::Network;
use crate::place::{self, Place};
use crate::registrar::{Registrar, Task};
use crate::status::{self, StatusReport};
use crate::watchdog::Watchdog;
use crate::{identity, log};

/// What comes into the loop.
#[derive(Debug)]
pub enum Input {
    /// From the network.
    Datagram(Vec<u8>),
    /// The mailbox was read, or could not be.
    Mailbox(u64, Result<MailboxRead, String>),
    /// The slot was written, or could not be.
    Written(Result<(), String>),
    /// Keys are registered, or not all of them.
    Registered(bool),
    /// Keys are given up.
    Unregistered,
    /// Somebody asks.
    Question(UnixStream),
    /// The node is to end.
    Stop,
}

/// Runs the node until it is told to stop.
///
/// # Errors
/// [`NodeError`], at start only.
pub fn run(arguments: &NodeArgs) -> Result<(), NodeError> {
    let mut runner = Runner::start(arguments)?;
    runner.work();
    Ok(())
}

struct Runner {
    arguments: NodeArgs,
    name: String,
    domain: Uuid,
    secret: Secret,
    node: Node,
    network: Network,
    watchdog: Option<Watchdog>,
    queue: Receiver<Input>,
    reads: Sender<(u64, SlotSet)>,
    writes: Sender<Box<MemberSlot>>,
    writing: bool,
    write_waits: Option<Box<MemberSlot>>,
    write_fails: bool,
    read_fails: bool,
    registrar: Sender<Task>,
    hooks: Sender<HookRun>,
    ready: bool,
}

impl Runner {
    fn start(arguments: &NodeArgs) -> Result<Self, NodeError> {
        let path = arguments.domain_disk.clone().unwrap_or_default();
        if arguments.timeout < 4 * arguments.interval {
            return Err(NodeError::Usage(format!(
                "--timeout {} is less than four times --interval {}: one lost datagram would be a lost member",
                arguments.timeout, arguments.interval
            )));
        }
        let disk_error = |error| NodeError::Disk {
            path: path.clone(),
            error,
        };
        let disk = Disk::open(&path).map_err(disk_error)?;
        let Place { domain, head, slot } = place::find(&disk, &path, arguments.member.as_deref())?;
        let name = head.names(SlotSet::one(slot)).concat();
        let incarnation = match arguments.incarnation {
            Some(incarnation) => incarnation,
            None => identity::incarnation(domain, &name)?,
        };
        let key = match arguments.no_register {
            true => None,
            false => Some(identity::key(&arguments.run_dir, domain, &name)?),
        };
        let (sender, queue) = mpsc::channel();
        let network = Network::bind(&arguments.listen, &arguments.peer)?;
        let socket_error = |error| NodeError::File {
            what: "the sockets of heartbeats",
            path: String::new(),
            error,
        };
        let addresses = network.addresses().map_err(socket_error)?;
        status::serve(&arguments.socket, &sender)?;
        network.hear(&sender).map_err(socket_error)?;
        stop_on_signals(&sender)?;
        let reads = reader(disk.again().map_err(disk_error)?, domain, &sender);
        let writes = writer(disk.again().map_err(disk_error)?, domain, slot, &sender);
        let registrar = Registrar {
            disk,
            domain,
            by_id: arguments.by_id.clone(),
            key,
            done: BTreeSet::new(),
        };
        let (tasks, task_queue) = mpsc::channel();
        thread::spawn(move || registrar.work(&task_queue, &sender));
        let (hooks, hook_queue) = mpsc::channel();
        let limit = Duration::from_millis(arguments.hook_timeout);
        thread::spawn(move || hooks::work(&hook_queue, limit));
        let seed = identity::random()?;
        let settings = Settings {
            domain,
            slot,
            name: name.clone(),
            incarnation,
            claim_seed: Uuid::from_u64_pair(seed, identity::random()?),
            addresses,
            interval_ms: arguments.interval,
            timeout_ms: arguments.timeout,
            join_timeout_ms: arguments.join_timeout,
            storage_timeout_ms: arguments.storage_timeout,
        };
        log::line(
            5,
            &format!(
                "{name} of domain {}, slot {slot}, epoch {}",
                head.name, head.epoch
            ),
        );
        Ok(Self {
            name,
            domain,
            secret: head.secret.clone(),
            node: Node::new(settings, now_ms()),
            network,
            watchdog: arguments.watchdog.clone().map(Watchdog::new),
            queue,
            reads,
            writes,
            writing: false,
            write_waits: None,
            write_fails: false,
            read_fails: false,
            registrar: tasks,
            hooks,
            ready: false,
            arguments: arguments.clone(),
        })
    }

    fn work(&mut self) {
        loop {
            self.node.handle_tick(now_ms());
            self.carry_out();
            let wait_ms = self.node.next_ms().saturating_sub(now_ms()).max(1);
            // The watchdog is petted at least as often as the slot is written.
            let wait = Duration::from_millis(wait_ms.min(self.arguments.interval));
            let input = match self.queue.recv_timeout(wait) {
                Ok(input) => input,
                Err(RecvTimeoutError::Timeout) => continue,
                // The threads that answer live as long as this one.
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // Time comes before what has happened: a pause is noticed first.
            self.node.handle_tick(now_ms());
            if matches!(input, Input::Stop) {
                self.stop();
                return;
            }
            self.take(input);
            self.carry_out();
        }
    }

    fn take(&mut self, input: Input) {
        let now_ms = now_ms();
        match input {
            Input::Datagram(bytes) => {
                if let Ok(heartbeat) = Heartbeat::open(&bytes, &self.secret) {
                    self.node.handle_heartbeat(now_ms, heartbeat);
                }
            }
            Input::Mailbox(ticket, Ok(read)) => {
                self.complain(false, None);
                self.secret = read.head.secret.clone();
                self.node.handle_mailbox(now_ms, ticket, read);
            }
            Input::Mailbox(ticket, Err(error)) => {
                self.complain(false, Some(error));
                self.node.handle_read_failed(now_ms, ticket);
            }
            Input::Written(result) => {
                self.complain(true, result.err());
                self.writing = false;
                if let Some(slot) = self.write_waits.take() {
                    self.write(slot);
                }
            }
            Input::Registered(fine) => self.node.handle_registered(now_ms, fine),
            Input::Question(stream) => {
                let report = StatusReport::of(&self.node, &self.name);
                status::answer(stream, report.as_ref());
            }
            Input::Unregistered | Input::Stop => {}
        }
    }

    /// Says once that reads or writes of the mailbox fail, and once that they work again.
    fn complain(&mut self, write: bool, error: Option<String>) {
        let (what, fails) = match write {
            true => (
                "this member's slot cannot be written",
                &mut self.write_fails,
            ),
            false => ("the mailbox cannot be read", &mut self.read_fails),
        };
        match &error {
            Some(error) if !*fails => log::line(3, &format!("{what}: {error}")),
            None if *fails => log::line(5, &format!("no longer: {what}")),
            _ => {}
        }
        *fails = error.is_some();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Send { to, heartbeat } => {
                    let datagram = heartbeat.seal(&self.secret);
                    let member = self.names(SlotSet::one(to)).concat();
                    let addresses = self.node.addresses(to);
                    self.network.send(&member, addresses, &datagram);
                }
                Output::Read { ticket, slots } => {
                    let _ = self.reads.send((ticket, slots));
                }
                Output::Write(slot) if self.writing => self.write_waits = Some(slot),
                Output::Write(slot) => self.write(slot),
                Output::Register { all } => {
                    let _ = self.registrar.send(Task::Register { all });
                }
                Output::Hook(hook) => self.hook(hook),
                Output::Event(event) => self.tell(&event),
            }
        }
        self.pet();
    }

    fn write(&mut self, slot: Box<MemberSlot>) {
        self.writing = true;
        let _ = self.writes.send(slot);
    }

    fn pet(&mut self) {
        if let Some(watchdog) = &mut self.watchdog
            && self.node.has_access()
            && let Err(error) = watchdog.pet()
        {
            log::line(3, &format!("the watchdog cannot be petted: {error}"));
        }
    }

    fn hook(&mut self, hook: Hook) {
        let mut environment = vec![
            ("RINGFENCE_DOMAIN", self.head_name()),
            ("RINGFENCE_MEMBER", self.name.clone()),
        ];
        let (name, command, epoch) = match hook {
            Hook::Won { epoch, fenced } => {
                environment.push(("RINGFENCE_FENCED", self.names(fenced).join(" ")));
                ("won", self.arguments.on_won.clone(), epoch)
            }
            Hook::Lost { cause, epoch } => {
                let cause = match cause {
                    LostCause::Race => "race",
                    LostCause::Storage => "storage",
                    LostCause::Removed => "removed",
                };
                environment.push(("RINGFENCE_CAUSE", cause.to_owned()));
                ("lost", self.arguments.on_lost.clone(), epoch)
            }
            Hook::Fenced { epoch } => ("fenced", self.arguments.on_fenced.clone(), epoch),
        };
        environment.push(("RINGFENCE_HOOK", name.to_owned()));
        environment.push(("RINGFENCE_EPOCH", epoch.to_string()));
        log::line(4, &format!("{name}, epoch {epoch}"));
        let is_loss = name != "won";
        let mut reboot = None;
        if let (Some(watchdog), true) = (&mut self.watchdog, is_loss) {
            watchdog.give_up();
            let trigger = &self.arguments.sysrq_trigger;
            match command {
                // Nothing says how I/O is stopped otherwise.
                None => hooks::reboot(trigger),
                Some(_) => reboot = Some(trigger.clone()),
            }
        }
        let _ = self.hooks.send(HookRun {
            name,
            command,
            environment,
            is_loss,
            reboot,
        });
    }

    fn tell(&mut self, event: &Event) {
        let text = match event {
            Event::LinkUp { slot } => {
                format!("link to {}", self.names(SlotSet::one(*slot)).concat())
            }
            Event::LinkDown {
                slot, left: true, ..
            } => {
                let name = self.names(SlotSet::one(*slot)).concat();
                format!("{name} stops in order")
            }
            Event::LinkDown {
                slot, silent_ms, ..
            } => {
                let name = self.names(SlotSet::one(*slot)).concat();
                format!("no link to {name}: no answer for {silent_ms} ms")
            }
            Event::View(view) => {
                let master = self.names(SlotSet::one(view.master)).concat();
                let members = self.names(view.members).join(", ");
                format!("view {} by {master}: {members}", view.number)
            }
            Event::Status(status) => {
                if *status == Status::Member && !self.ready {
                    self.ready = true;
                    log::notify("READY=1");
                }
                let text = format!("{status:?}").to_lowercase();
                log::notify(&format!("STATUS={text}"));
                format!("status {text}")
            }
            Event::Claimed(claim) => {
                let group = self.names(claim.group).join(", ");
                format!("claims epoch {} for {group} ({})", claim.epoch, claim.id)
            }
            Event::Answered(answer) => {
                let reason = answer.reason.as_deref().map(|reason| format!(": {reason}"));
                let verdict = format!("{:?}", answer.verdict).to_lowercase();
                format!(
                    "{} is {verdict}{}",
                    answer.claim,
                    reason.unwrap_or_default()
                )
            }
            Event::Paused { jump_ms } => {
                format!("time has jumped by {jump_ms} ms: the mailbox is read before anything else")
            }
            Event::StorageLost { silent_ms } => {
                format!("the head has not been seen for {silent_ms} ms")
            }
            Event::StorageBack => "the head is seen again".into(),
            Event::Waits { slots } if slots.is_empty() => {
                log::notify("STATUS=starting");
                "registers a key: nobody is waited for any more".into()
            }
            Event::Waits { slots } => {
                let names = self.names(*slots).join(", ");
                let text = format!("no key before there is a link to {names}, who have one");
                log::notify(&format!("STATUS=starting: {text}"));
                text
            }
            Event::Lost(cause) => format!("lost: {cause:?}").to_lowercase(),
        };
        log::line(5, &text);
    }

    fn names(&self, slots: SlotSet) -> Vec<String> {
        let head = self.node.head();
        head.map_or_else(Vec::new, |head: &HeadArea| head.names(slots))
    }

    fn head_name(&self) -> String {
        self.node
            .head()
            .map_or_else(|| self.domain.to_string(), |head| head.name.clone())
    }

    /// Peers are told, the slot says so, keys go, the watchdog stops: in this order, each waited for, but not for long.
    fn stop(&mut self) {
        log::notify("STOPPING=1");
        let fenced = self.node.status() == Status::Fenced;
        self.node.handle_stop(now_ms());
        self.carry_out();
        self.wait(Duration::from_secs(3), |runner, _| !runner.writing);
        if !fenced && self.registrar.send(Task::Unregister).is_ok() {
            self.wait(Duration::from_secs(10), |_, input| {
                matches!(input, Some(Input::Unregistered))
            });
        }
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.close();
        }
        let _ = std::fs::remove_file(&self.arguments.socket);
    }

    fn wait(&mut self, limit: Duration, done: impl Fn(&Self, Option<&Input>) -> bool) {
        let end_ms = now_ms() + limit.as_millis() as u64;
        while !done(self, None) {
            let left_ms = end_ms.saturating_sub(now_ms());
            let Ok(input) = self.queue.recv_timeout(Duration::from_millis(left_ms)) else {
                return;
            };
            if done(self, Some(&input)) {
                return;
            }
            if let Input::Written(_) = input {
                self.take(input);
            }
        }
    }
}

/// `CLOCK_BOOTTIME`: it never goes back and counts a suspend.
fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    // Both are positive since the boot.
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

fn stop_on_signals(queue: &Sender<Input>) -> Result<(), NodeError> {
    let signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT]);
    let mut signals = signals.map_err(|error| NodeError::File {
        what: "signals of",
        path: "the kernel".into(),
        error,
    })?;
    let queue = queue.clone();
    thread::spawn(move || {
        for _ in signals.forever() {
            if queue.send(Input::Stop).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn reader(disk: Disk, domain: Uuid, queue: &Sender<Input>) -> Sender<(u64, SlotSet)> {
    let (sender, reads) = mpsc::channel();
    let queue = queue.clone();
    thread::spawn(move || {
        for (ticket, slots) in reads {
            let read = disk
                .mailbox(domain, slots)
                .map_err(|error| error.to_string());
            if queue.send(Input::Mailbox(ticket, read)).is_err() {
                return;
            }
        }
    });
    sender
}

/// Writes slots, each under the sequence number after the last one on the disk.
fn writer(disk: Disk, domain: Uuid, slot: u16, queue: &Sender<Input>) -> Sender<Box<MemberSlot>> {
    let (sender, writes) = mpsc::channel::<Box<MemberSlot>>();
    let queue = queue.clone();
    thread::spawn(move || {
        let mut last = None;
        for said in writes {
            let written = write(&disk, domain, slot, &mut last, &said);
            let written = written.map_err(|error| error.to_string());
            if queue.send(Input::Written(written)).is_err() {
                return;
            }
        }
    });
    sender
}

fn write(
    disk: &Disk,
    domain: Uuid,
    slot: u16,
    last: &mut Option<u64>,
    said: &MemberSlot,
) -> io::Result<()> {
    let sequence = match *last {
        Some(last) => last,
        None => match disk.slot(slot, domain) {
            Ok(read) => read.sequence,
            // Nothing sound is there.
            Err(DiskError::Content(_)) => 0,
            Err(DiskError::Io(error)) => return Err(error),
        },
    }
    .saturating_add(1);
    let copy = said
        .encode(domain, slot, sequence)
        .map_err(io::Error::other)?;
    // After a write of which it is not known whether it arrived, the disk is asked.
    *last = None;
    disk.write(&copy)?;
    *last = Some(sequence);
    Ok(())
}
