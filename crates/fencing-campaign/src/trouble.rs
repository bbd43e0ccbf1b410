//! What goes wrong: partitions of every shape, pauses, clock jumps, crashes, lost devices, and operators.

use fencing::{Claim, Input, Method, Prefer};

use crate::plan::{NAMES, VOLUMES, names};
use crate::world::{Event, World};

impl World {
    /// One trouble, and the next one soon.
    pub fn trouble(&mut self) {
        let kind = self.random.below(16);
        if self.plan.troubles & (1 << kind) != 0 {
            self.make(kind);
        }
        let delay_ms = self.random.within(200, 3_000);
        self.push(delay_ms, Event::Trouble);
    }

    fn make(&mut self, kind: u64) {
        let members = self.plan.members;
        let member = self.random.below(members as u64) as usize;
        let head = self.random.below(self.heads.len() as u64) as usize;
        match kind {
            0 | 1 => {
                let side = self.random.below(1 << members) as u8;
                self.partition(&[side, !side]);
            }
            2 => {
                // One way only, or any links at all.
                for from in 0..members {
                    for to in 0..members {
                        if self.random.permille(300) {
                            self.links[from][to] = self.random.permille(500);
                        }
                    }
                }
            }
            3 => {
                for other in 0..members {
                    self.links[member][other] = false;
                    if self.random.permille(500) {
                        self.links[other][member] = false;
                    }
                }
            }
            4 | 5 => self.partition(&[u8::MAX]),
            6 => {
                let up = self.random.permille(600);
                self.reach[member][head] = up;
            }
            7 => {
                let pause_ms = self.random.within(500, 15_000);
                self.members[member].paused_until_ms = self.now_ms + pause_ms;
            }
            8 => self.kill(member),
            9 => self.members[member].clock_ms += self.random.within(100, 20_000),
            10 | 11 => {
                if self.heads[head].up {
                    self.trace(|| format!("head {head} crashes"));
                    self.crash_head(head);
                    let delay_ms = self.random.within(100, 6_000);
                    self.push(delay_ms, Event::Start { head });
                }
            }
            12 => {
                self.quorum_up = false;
                let delay_ms = self.random.within(100, 20_000);
                self.push(delay_ms, Event::QuorumBack);
            }
            13 => {
                let volume = self.random.below(VOLUMES as u64) as usize;
                self.lose_volume(head, volume);
                self.heads[head].clock_ms += self.random.below(5_000);
            }
            14 => self.operator(head, member),
            _ => self.strange_claim(head, member),
        }
    }

    /// A volume is not served for a while; what was on its way has ended before, or does not happen.
    fn lose_volume(&mut self, head: usize, volume: usize) {
        let state = &mut self.heads[head];
        state.served[volume] = false;
        state.ios.retain(|io| io.volume != volume);
        for drain in &mut state.drains {
            if drain.closing & (1 << volume) != 0 {
                drain.closing &= !(1 << volume);
                drain.not_served |= 1 << volume;
            }
        }
        if state.up {
            self.drained(head);
        }
        let delay_ms = self.random.within(100, 10_000);
        self.push(delay_ms, Event::Serve { head, volume });
    }

    fn operator(&mut self, head: usize, member: usize) {
        if !self.heads[head].up {
            return;
        }
        let id = self.fresh_id();
        let name = NAMES[member].to_owned();
        match self.random.below(5) {
            0 | 1 => {
                let methods = match self.random.below(3) {
                    0 => Some(vec![Method::Reservation]),
                    1 => Some(vec![Method::Fabric]),
                    _ => None,
                };
                let member = name;
                self.give(
                    head,
                    Input::Fence {
                        id,
                        member,
                        methods,
                    },
                );
            }
            2 | 3 => self.ask_unfence(head, member),
            _ => {
                let prefer = *self
                    .random
                    .pick(&[Prefer::Largest, Prefer::Weight, Prefer::Holder]);
                let change = fencing::coordinator::Change::Prefer(prefer);
                self.give(head, Input::Change { id, change });
            }
        }
    }

    /// A claim that was made long ago, or by nobody, or for strangers, or for an epoch to come.
    fn strange_claim(&mut self, head: usize, member: usize) {
        if !self.heads[head].up {
            return;
        }
        let mut claim = if self.old_claims.is_empty() || self.random.permille(300) {
            Claim {
                id: self.fresh_id(),
                member: NAMES[member].to_owned(),
                group: names(self.random.number() as u8 & ((1 << self.plan.members) - 1)),
                epoch: self.heads[head].area.epoch,
            }
        } else {
            self.random.pick(&self.old_claims).clone()
        };
        match self.random.below(8) {
            0 => claim.member = "Z".into(),
            1 => {
                claim.group.insert("Z".into());
            }
            2 => claim.epoch += self.random.below(3),
            3 => claim.group.clear(),
            _ => {}
        }
        self.give(head, Input::Claim(claim));
    }

    /// Who is in one of the sets together hears each other, and nobody else.
    pub fn partition(&mut self, sides: &[u8]) {
        self.trace(|| format!("partition {sides:?}"));
        for from in 0..self.plan.members {
            for to in 0..self.plan.members {
                let together = sides
                    .iter()
                    .any(|side| side & (1 << from) != 0 && side & (1 << to) != 0);
                self.links[from][to] = together;
            }
        }
    }
}
