//! A member without any other way to the head races, is answered and comes back through the mailbox alone.
#![allow(clippy::unwrap_used)] // a test fails by panicking, in its helpers too

#[allow(dead_code)] // other tests use more of it
mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::Daemon;
use fencing::SlotSet;
use fencing::mailbox::{AnswerVerdict, CopyWrite, HEAD, HeadArea, MemberSlot, SlotClaim, Status};
use initiator::{Config, Session};
use scsi::Lun;
use uuid::Uuid;

const BLOCK_BYTES: u32 = 512;

struct Member {
    session: Session,
    mailbox: Lun,
    domain: Uuid,
    slot: u16,
    sequence: u64,
    said: MemberSlot,
}

impl Member {
    fn join(daemon: &Daemon, name: &str, volume: Lun, mailbox: Lun, domain: Uuid) -> Self {
        let kind = iscsi::initiator::Session::Normal {
            target_name: "iqn.2026-11.dev.ringfence:test".to_owned(),
        };
        let config = Config::new(format!("iqn.x:{name}"), [0x80, 0, 0, 0, 0, 1], kind);
        let mut session = Session::connect(daemon.portals[0].parse().unwrap(), config).unwrap();
        session.clear_unit_attentions(volume).unwrap();
        session.clear_unit_attentions(mailbox).unwrap();
        session.register_and_ignore(volume, 7, false).unwrap();
        Self {
            session,
            mailbox,
            domain,
            slot: u16::from(name == "b"),
            sequence: 0,
            said: MemberSlot {
                member: name.to_owned(),
                incarnation: Uuid::new_v4(),
                beat: 0,
                status: Status::Member,
                addresses: Vec::new(),
                heard: SlotSet::EMPTY,
                view: None,
                claim: None,
                wants_unfence: false,
            },
        }
    }

    /// Writes its slot.
    fn say(&mut self, change: impl FnOnce(&mut MemberSlot)) {
        change(&mut self.said);
        self.said.beat += 1;
        self.sequence += 1;
        let copy: CopyWrite = self
            .said
            .encode(self.domain, self.slot, self.sequence)
            .unwrap();
        let lba = copy.offset_bytes / u64::from(BLOCK_BYTES);
        let data = Bytes::from(copy.bytes);
        self.session
            .write(self.mailbox, lba, data, BLOCK_BYTES, false)
            .unwrap();
    }

    fn head(&mut self) -> Option<HeadArea> {
        let copy = HEAD.copy_bytes;
        let blocks = 2 * copy as u32 / BLOCK_BYTES;
        let lba = HEAD.offset_bytes / u64::from(BLOCK_BYTES);
        let read = self.session.read(self.mailbox, lba, blocks, BLOCK_BYTES);
        let bytes = read.unwrap();
        let read = HeadArea::decode([&bytes[..copy], &bytes[copy..]], Some(self.domain)).ok()?;
        Some(read.payload)
    }

    /// Waits until the head says what `look` finds.
    fn hears<T>(&mut self, what: &str, look: impl Fn(&HeadArea) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(found) = self.head().as_ref().and_then(&look) {
                return found;
            }
            assert!(Instant::now() < deadline, "never heard: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn lun(value: &serde_json::Value) -> Lun {
    Lun::new(u16::try_from(value.as_u64().unwrap()).unwrap()).unwrap()
}

#[test]
fn a_race_and_a_return_through_the_mailbox() {
    let daemon = Daemon::start();
    for device in ["d1", "d2", "d3"] {
        daemon.add_device(device, "256M");
    }
    let volume = lun(&daemon.json(&["volume", "create", "v", "--size", "1M"])["lun"]);
    let options = ["--quorum-device", "d2", "--window", "100ms"];
    let create = ["domain", "create", "web", "--volumes", "v"];
    let domain = daemon.json(&[&create, options.as_slice()].concat());
    let mailbox = lun(&domain["mailbox"]["lun"]);
    let uuid: Uuid = domain["uuid"].as_str().unwrap().parse().unwrap();
    for (name, initiator) in [("a", "iqn.x:a"), ("b", "iqn.x:b")] {
        let add = [
            "domain",
            "member",
            "add",
            "web",
            name,
            "--initiator",
            initiator,
        ];
        daemon.json(&add);
    }
    daemon.json(&["grant", "v", "domain:web", "rw"]);
    let mut a = Member::join(&daemon, "a", volume, mailbox, uuid);
    let mut b = Member::join(&daemon, "b", volume, mailbox, uuid);
    a.say(|_| ());
    b.say(|_| ());
    a.hears("that both are registered", |head| {
        let registered = head.members.values().filter(|member| member.registered);
        (registered.count() == 2).then_some(())
    });

    let claim = SlotClaim {
        id: Uuid::new_v4(),
        epoch: 0,
        group: SlotSet::one(0),
    };
    a.say(|said| said.claim = Some(claim));
    let answer = a.hears("the verdict", |head| {
        let answer = head.answers.get(&0)?;
        (answer.claim == claim.id).then(|| answer.clone())
    });
    assert_eq!(answer.verdict, AnswerVerdict::Won);
    assert_eq!((answer.epoch, answer.fenced), (1, SlotSet::one(1)));
    b.session.clear_unit_attentions(volume).ok();
    let data = Bytes::from(vec![1; BLOCK_BYTES as usize]);
    let written = b.session.write(volume, 0, data, BLOCK_BYTES, false);
    assert!(written.is_err_and(|error| error.is_reservation_conflict()));
    let epoch = b.hears("that b is fenced", |head| head.members.get(&1)?.fenced);
    assert_eq!(epoch, 1);

    // The boot that was fenced stays fenced; the next one comes back.
    b.say(|said| said.wants_unfence = true);
    std::thread::sleep(Duration::from_millis(800));
    assert!(b.head().unwrap().members[&1].fenced.is_some());
    b.say(|said| said.incarnation = Uuid::new_v4());
    b.hears("that b has access again", |head| {
        head.members.get(&1)?.fenced.is_none().then_some(())
    });
    b.session.clear_unit_attentions(volume).unwrap();
    b.session.register_and_ignore(volume, 8, false).unwrap();

    // A slot that is nobody's is no member.
    let nobody = SlotClaim {
        id: Uuid::new_v4(),
        epoch: 2,
        group: [0, 9].into_iter().collect(),
    };
    a.say(|said| said.claim = Some(nobody));
    let refused = a.hears("the refusal", |head| {
        let answer = head.answers.get(&0)?;
        (answer.claim == nobody.id).then_some(answer.verdict)
    });
    assert_eq!(refused, AnswerVerdict::Refused);
}
