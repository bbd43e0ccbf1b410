//! Everything at once, on threads: commands of all kinds, task management, sessions that come and go, grants that
//! change, a logical unit that is taken away and given back. Nothing may hang, and at the end what is in force is what
//! is durable and nothing is in flight. `RINGFENCE_SEED` gives another course of things.

use std::sync::mpsc;
use std::thread;

use futures_lite::future::zip;
use scsi::cdb::PersistentReserveOutAction as Action;
use scsi::cdb::{ReserveSize, Sanitize, SanitizeAction, StartStopUnit};
use scsi::sam::TaskManagementFunction as Function;

use super::copying::list;
use super::reserving::pr_out;
use super::stress::{attach, write_somehow};
use super::*;

const THREADS: u64 = 3;
const STEPS: usize = 8_000;
const NAMES: [&str; 3] = ["one", "two", "three"];

/// xorshift64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize]
    }
}

const ACTIONS: [Action; 8] = [
    Action::Register,
    Action::RegisterAndIgnoreExistingKey,
    Action::RegisterAndIgnoreExistingKey,
    Action::Reserve,
    Action::Release,
    Action::Clear,
    Action::Preempt,
    Action::PreemptAndAbort,
];

const FUNCTIONS: [Function; 5] = [
    Function::AbortTask,
    Function::AbortTaskSet,
    Function::ClearTaskSet,
    Function::LogicalUnitReset,
    Function::TargetWarmReset,
];

async fn change_reservations(by: &Initiator, dice: &mut Dice) {
    let action = dice.pick(&ACTIONS);
    let kind = dice.pick(&[1, 3, 5, 6, 7, 8]);
    let list = scsi::pr::BasicParameters {
        reservation_key: dice.roll(3),
        service_action_reservation_key: dice.roll(3),
        ..scsi::pr::BasicParameters::default()
    }
    .encode();
    let cdb = super::reserving::pr_out_cdb(action, kind, &list);
    by.raw(0, &cdb.encode(), &list).await;
}

async fn short(by: &Initiator, cdb: Cdb) {
    by.raw(0, &cdb.encode(), &[]).await;
}

/// What the operator does.
async fn operate(world: &World, dice: &mut Dice) {
    match dice.roll(3) {
        0 => {
            let volume = world.pool.volume("v0").unwrap();
            world.target.remove_logical_unit(0).await;
            world.target.add_logical_unit(volume).await.unwrap();
        }
        _ => {
            let name = format!("iqn.2026-11.test:{}", dice.pick(&NAMES));
            let access = dice.pick(&[Access::None, Access::Ro, Access::Rw, Access::Rw]);
            world.grant("v0", &name, access).await;
        }
    }
}

fn step(world: &World, by: &mut Initiator, copy_list: &[u8], dice: &mut Dice, operator: bool) {
    let base = dice.roll(2) * 8;
    let kind = dice.roll(8) as usize;
    match dice.roll(16) {
        0..5 => {
            let (other, tag) = (dice.roll(8) as usize, by.next_tag());
            let function = dice.pick(&FUNCTIONS);
            let manage = async {
                if kind < 2 {
                    let lun = lun_field(0);
                    by.session.task_management(function, lun, tag).await;
                }
            };
            let writes = zip(
                write_somehow(by, copy_list, kind, base),
                write_somehow(by, copy_list, other, base),
            );
            run(zip(writes, manage));
        }
        5..9 => {
            let write = write_somehow(by, copy_list, kind, base);
            run(zip(write, change_reservations(by, dice)));
        }
        9 => run(async {
            let attribute = dice.pick(&[TaskAttribute::Ordered, TaskAttribute::HeadOfQueue]);
            let cdb = write(base, 1).encode();
            let barrier = by.raw_with(0, &cdb, &[1; 512], attribute);
            zip(barrier, write_somehow(by, copy_list, kind, base)).await;
        }),
        10 => run(short(by, Cdb::Reserve(ReserveSize::Six))),
        11 => run(short(by, Cdb::Release(ReserveSize::Six))),
        12 if operator => run(operate(world, dice)),
        12 | 13 => {
            run(by.session.detach(DetachReason::NexusLoss));
            let name = by.session.nexus().initiator.name.clone();
            *by = attach(world, name.rsplit(':').next().unwrap());
        }
        14 if kind == 0 => run(short(
            by,
            Cdb::Sanitize(Sanitize {
                action: SanitizeAction::BlockErase,
                immediate: dice.roll(2) == 0,
                allow_unrestricted_exit: true,
                parameter_list_length: 0,
            }),
        )),
        _ => run(async {
            let start = StartStopUnit {
                start: dice.roll(4) > 0,
                ..StartStopUnit::default()
            };
            short(by, Cdb::StartStopUnit(start)).await;
            for _ in 0..4 {
                short(by, Cdb::TestUnitReady).await;
            }
        }),
    }
}

fn play(world: &World, copy_list: &[u8], thread: u64, seed: u64) {
    // Never zero, where it would stay.
    let mut dice = Dice((seed * THREADS + thread + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut by = attach(world, NAMES[thread as usize]);
    for _ in 0..STEPS {
        step(world, &mut by, copy_list, &mut dice, thread == 0);
    }
    run(by.session.detach(DetachReason::Logout));
    // What was spawned here, SANITIZE above all, can only end here.
    run(async {
        while SPAWNED.with_borrow(|spawned| !spawned.is_empty()) {
            yield_now().await;
        }
    });
}

#[test]
fn nothing_hangs_and_what_is_in_force_is_durable() {
    let world = Arc::new(run(World::new()));
    let source = run(world.add_volume("v1", BlockSize::B512));
    world
        .device
        .dawdle
        .store(true, std::sync::atomic::Ordering::SeqCst);
    // Within the logical unit and to and from another.
    let segments = [(0, 0, 0, 64, 16), (0, 8, 1, 0, 16), (1, 8, 0, 8, 8)];
    let copy_list = list(&world, &[0, source], &segments);
    let seed = std::env::var("RINGFENCE_SEED").map_or(0, |seed| seed.parse().unwrap());
    let (ended, ends) = mpsc::channel();
    for number in 0..THREADS {
        let (world, ended, copy_list) = (world.clone(), ended.clone(), copy_list.clone());
        thread::spawn(move || {
            play(&world, &copy_list, number, seed);
            ended.send(()).unwrap();
        });
    }
    drop(ended);
    for _ in 0..THREADS {
        // Far longer than it takes: somebody waits for ever, or has panicked.
        ends.recv_timeout(Duration::from_secs(120)).unwrap();
    }
    assert!(world.target.sessions().is_empty());
    let unit = world.target.logical_unit(0).unwrap();
    assert_eq!(unit.in_flight(), 0);
    let reservations = unit.reservations().unwrap();
    assert_eq!(reservations.scsi2, None, "all nexuses are gone");
    let volume = world.pool.volume("v0").unwrap();
    let durable = run(volume.private_region().unwrap().read_back()).unwrap();
    assert_eq!(reservations.persistent, durable.state);
    // It is still good for something.
    let a = attach(&world, "a");
    let start = Cdb::StartStopUnit(StartStopUnit {
        start: true,
        ..StartStopUnit::default()
    });
    run(async {
        for _ in 0..4 {
            short(&a, start).await;
        }
        let last = pr_out(&a, Action::RegisterAndIgnoreExistingKey, 0, 0, 9).await;
        assert_eq!(last.status, Status::Good);
    });
}
