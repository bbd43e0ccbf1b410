//! Both ends connected in memory, with a disk behind the target.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::buffer::DATA_ALIGNMENT_BYTES;
use crate::{initiator, target};

pub const TARGET: &str = "iqn.2026-11.dev.ringfence:test";
pub const INITIATOR: &str = "iqn.1993-08.org.debian:01:abc";
pub const ISID: [u8; 6] = [0, 2, 0x3d, 0, 0, 1];

pub fn target_config() -> target::Config {
    target::Config {
        target_names: vec![TARGET.into()],
        ..target::Config::default()
    }
}

pub fn initiator_config() -> initiator::Config {
    let target_name = TARGET.into();
    initiator::Config::new(INITIATOR, ISID, initiator::Session::Normal { target_name })
}

/// READ(16) and WRITE(16) with blocks of one byte.
pub fn cdb(operation_code: u8, offset: u64, length: u32) -> Bytes {
    let mut cdb = BytesMut::zeroed(16);
    cdb[0] = operation_code;
    cdb[2..10].copy_from_slice(&offset.to_be_bytes());
    cdb[10..14].copy_from_slice(&length.to_be_bytes());
    cdb.freeze()
}

pub const READ: u8 = 0x88;
pub const WRITE: u8 = 0x8a;

pub fn read_command(offset: u64, length: u32) -> initiator::Command {
    initiator::Command {
        cdb: cdb(READ, offset, length),
        data_in_length_bytes: length,
        ..initiator::Command::default()
    }
}

pub fn write_command(offset: u64, data: Bytes) -> initiator::Command {
    initiator::Command {
        cdb: cdb(WRITE, offset, data.len() as u32),
        data_out: data,
        ..initiator::Command::default()
    }
}

/// A small random sequence, from a seed.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit.max(1)
    }
}

/// What the application behind the target owes.
#[derive(Debug)]
pub enum Owed {
    Read {
        itt: u32,
        offset: usize,
        length: usize,
    },
    Write {
        itt: u32,
        offset: usize,
        data: BytesMut,
    },
}

#[derive(Debug)]
pub struct Pair {
    pub target: target::Connection,
    pub initiator: initiator::Connection,
    pub disk: Vec<u8>,
    pub random: Random,
    pub owed: Vec<Owed>,
    /// Writes that are accepted and have no data yet.
    pub without_data: Vec<u32>,
    /// While set, the application answers nothing.
    pub hold: bool,
    /// Set to refuse the login.
    pub refuse: Option<target::LoginStatus>,
    pub discovered: Vec<target::DiscoveredTarget>,
    /// Events of the target that the harness does not handle.
    pub target_events: Vec<target::Event>,
    pub events: Vec<initiator::Event>,
    pub now: Instant,
    to_target: VecDeque<u8>,
    to_initiator: VecDeque<u8>,
}

impl Pair {
    pub fn new(target: target::Config, initiator: initiator::Config, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            target: target::Connection::new(Arc::new(target), [7; 32], now),
            initiator: initiator::Connection::new(Arc::new(initiator), [9; 32], now),
            disk: vec![0; 1 << 20],
            random: Random(seed | 1),
            owed: Vec::new(),
            without_data: Vec::new(),
            hold: false,
            refuse: None,
            discovered: Vec::new(),
            target_events: Vec::new(),
            events: Vec::new(),
            now,
            to_target: VecDeque::new(),
            to_initiator: VecDeque::new(),
        }
    }

    /// Logged in, its login events dropped.
    pub fn logged_in(target: target::Config, initiator: initiator::Config, seed: u64) -> Self {
        let mut pair = Self::new(target, initiator, seed);
        pair.run();
        assert!(
            matches!(pair.events[..], [initiator::Event::LoggedIn { .. }]),
            "{pair:?}"
        );
        pair.events.clear();
        pair
    }

    /// Lets bytes flow in random pieces, and the application answer in random order, until nothing moves.
    pub fn run(&mut self) {
        loop {
            self.application();
            let mut chunks = VecDeque::new();
            let limit = 1 + self.random.below(100_000);
            let mut moved = self.target.poll_transmit(&mut chunks, limit);
            chunks.drain(..).for_each(|c| self.to_initiator.extend(c));
            moved += self.initiator.poll_transmit(&mut chunks, limit);
            chunks.drain(..).for_each(|c| self.to_target.extend(c));
            moved += self.to_target.len() + self.to_initiator.len();
            let piece = self.piece(true);
            if !piece.is_empty() {
                let _ = self.target.receive(&piece, self.now);
            }
            let piece = self.piece(false);
            if !piece.is_empty() {
                let _ = self.initiator.receive(&piece, self.now);
            }
            let before = self.events.len();
            while let Some(event) = self.initiator.poll_event() {
                self.events.push(event);
            }
            let answered = self.answer_one();
            if moved == 0 && !answered && before == self.events.len() {
                return;
            }
        }
    }

    fn piece(&mut self, to_target: bool) -> Vec<u8> {
        let most = match self.random.below(4) {
            0 => 1 + self.random.below(60),
            1 => 1 + self.random.below(2000),
            _ => usize::MAX,
        };
        let queue = match to_target {
            true => &mut self.to_target,
            false => &mut self.to_initiator,
        };
        queue.drain(..queue.len().min(most)).collect()
    }

    fn application(&mut self) {
        while let Some(event) = self.target.poll_event() {
            match event {
                target::Event::LoginRequest(_) => match self.refuse {
                    Some(status) => self.target.reject_login(status),
                    None => self.target.accept_login(NonZeroU16::new(0x77).unwrap()),
                },
                target::Event::Command(command) => self.command(command),
                target::Event::CommandData { itt, data } => {
                    let misaligned = data.as_ptr().align_offset(DATA_ALIGNMENT_BYTES) != 0;
                    assert!(data.is_empty() || !misaligned);
                    let owed = self.owed.iter_mut().find_map(|owed| match owed {
                        Owed::Write { itt: i, data, .. } if *i == itt => Some(data),
                        _ => None,
                    });
                    *owed.expect("data only for accepted writes") = data;
                    self.without_data.retain(|other| *other != itt);
                }
                target::Event::SendTargets(_) => {
                    self.target.answer_send_targets(&self.discovered);
                }
                target::Event::Logout(_) => self.target.respond_logout(),
                other => self.target_events.push(other),
            }
        }
    }

    fn command(&mut self, command: target::Command) {
        let offset = u64::from_be_bytes(command.cdb[2..10].try_into().unwrap()) as usize;
        let length = u32::from_be_bytes(command.cdb[10..14].try_into().unwrap()) as usize;
        let itt = command.itt;
        match command.cdb[0] {
            READ => self.owed.push(Owed::Read {
                itt,
                offset,
                length,
            }),
            WRITE => {
                let data = BytesMut::new();
                self.owed.push(Owed::Write { itt, offset, data });
                self.without_data.push(itt);
                self.target.accept_write(itt, length as u64).unwrap();
            }
            0x00 => self
                .target
                .respond(itt, target::ScsiResponse::good())
                .unwrap(),
            // Answered before its data is there.
            0x01 => self
                .target
                .respond(itt, target::ScsiResponse::status(0x18))
                .unwrap(),
            _ => self.target_events.push(target::Event::Command(command)),
        }
    }

    /// Ends one task that is ready; false when there is none.
    fn answer_one(&mut self) -> bool {
        let ready: Vec<usize> = (0..self.owed.len())
            .filter(|i| match &self.owed[*i] {
                Owed::Read { .. } => true,
                Owed::Write { itt, .. } => !self.without_data.contains(itt),
            })
            .collect();
        if ready.is_empty() || self.hold {
            return false;
        }
        let index = ready[self.random.below(ready.len())];
        match self.owed.swap_remove(index) {
            Owed::Read {
                itt,
                offset,
                length,
            } => {
                // In two chunks, so that PDUs span them.
                let cut = offset + self.random.below(length);
                let mut response = target::ScsiResponse::good();
                response
                    .data_in
                    .push(Bytes::copy_from_slice(&self.disk[offset..cut]));
                response
                    .data_in
                    .push(Bytes::copy_from_slice(&self.disk[cut..offset + length]));
                self.target.respond(itt, response).unwrap();
            }
            Owed::Write { itt, offset, data } => {
                self.disk[offset..offset + data.len()].copy_from_slice(&data);
                self.target
                    .respond(itt, target::ScsiResponse::good())
                    .unwrap();
            }
        }
        true
    }

    /// Runs one command to its end.
    pub fn execute(&mut self, command: initiator::Command) -> initiator::Completion {
        let itt = self.initiator.submit(command);
        self.run();
        let index = self
            .events
            .iter()
            .position(|event| matches!(event, initiator::Event::Completed(c) if c.itt == itt));
        match index.map(|index| self.events.remove(index)) {
            Some(initiator::Event::Completed(completion)) => completion,
            _ => panic!("command has not ended: {self:?}"),
        }
    }
}
