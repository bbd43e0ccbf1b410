//! A second reservation manager, written from the standards alone and as plainly as possible: flat lists, wire
//! numbers, text for answers, one paragraph of code for each paragraph of SPC-4. It shares no code with the crate.

/// (initiator port, target port)
pub type Nx = (u8, u16);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reg {
    pub who: Nx,
    pub key: u64,
    pub all_tg_pt: bool,
    /// It was there when information was lost, and its owner has not registered since.
    pub old: bool,
}

/// Whether information is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loss {
    #[default]
    No,
    /// As the standard has it: for all, until REPLACE LOST RESERVATION.
    Strict,
    /// For each until it registers by itself.
    Each,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naive {
    pub prgeneration: u32,
    pub aptpl: bool,
    pub lost: Loss,
    pub regs: Vec<Reg>,
    /// TYPE, and who established it or got it moved to (meaningless for types 7 and 8).
    pub reservation: Option<(u8, Nx)>,
    pub spc2: Option<Nx>,
    /// Hosts that are fenced.
    pub fenced: Vec<u8>,
}

/// The host of an initiator port: ports 0 and 1 are of one.
pub fn host(port: u8) -> u8 {
    port.saturating_sub(1)
}

/// A PERSISTENT RESERVE OUT as numbers on the wire, or RESERVE / RELEASE, or an event.
#[derive(Clone, Debug)]
pub enum Cmd {
    Basic {
        sa: u8,
        scope: u8,
        ty: u8,
        rk: u64,
        sark: u64,
        all_tg_pt: bool,
        aptpl: bool,
        spec_i_pt: Option<Vec<u8>>,
    },
    Move {
        rk: u64,
        sark: u64,
        unreg: bool,
        aptpl: bool,
        to: Nx,
    },
    Reserve,
    Release,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub answer: String,
    /// Nexus and "ASC/ASCQ", sorted.
    pub attentions: Vec<(Nx, &'static str)>,
    /// Sorted.
    pub aborted: Vec<Nx>,
}

/// How commands differ in what reservations do to them (SPC-4 table 65, SPC-2 table 9, SPC-4 5.13.5.2): a command of
/// each kind.
pub const KINDS: [&str; 10] = [
    "INQUIRY",
    "LOG SENSE",
    "READ CAPACITY",
    "TEST UNIT READY",
    "READ",
    "READ BUFFER",
    "WRITE",
    "WRITE BUFFER",
    "SYNCHRONIZE CACHE",
    "MODE SENSE",
];

impl Naive {
    fn key(&self, who: Nx) -> u64 {
        for r in &self.regs {
            if r.who == who {
                return r.key;
            }
        }
        0
    }

    fn registered(&self, who: Nx) -> bool {
        self.key(who) != 0
    }

    fn holds(&self, who: Nx) -> bool {
        match self.reservation {
            None => false,
            Some((7, _)) | Some((8, _)) => self.registered(who),
            Some((_, h)) => h == who,
        }
    }

    /// Does `who` hear of lost information (docs/decisions/0005)?
    pub fn is_told(&self, who: Nx) -> bool {
        match self.lost {
            Loss::No => false,
            Loss::Strict => true,
            Loss::Each => !self.regs.iter().any(|r| r.who == who && !r.old),
        }
    }

    /// May `who` send a command of this kind now?
    pub fn may(&self, who: Nx, kind: &str) -> bool {
        if self.fenced.contains(&host(who.0)) {
            return ["INQUIRY", "LOG SENSE", "READ CAPACITY", "TEST UNIT READY"].contains(&kind);
        }
        if self.is_told(who) {
            return ["INQUIRY", "LOG SENSE", "READ BUFFER", "WRITE BUFFER"].contains(&kind);
        }
        if self.spc2.is_some_and(|h| h != who) {
            return ["INQUIRY", "LOG SENSE", "READ CAPACITY"].contains(&kind);
        }
        let Some((ty, _)) = self.reservation else {
            return true;
        };
        if self.holds(who) || (ty >= 5 && self.registered(who)) {
            return true;
        }
        match kind {
            "INQUIRY" | "LOG SENSE" | "READ CAPACITY" | "TEST UNIT READY" => true,
            "READ" | "READ BUFFER" | "MODE SENSE" => ty == 1 || ty == 5 || ty == 7,
            _ => false,
        }
    }

    fn tell(&self, out: &mut Outcome, to: Nx, sender: Nx, what: &'static str) {
        if to != sender {
            out.attentions.push((to, what));
        }
    }

    /// Executes the command, with these target ports and room for so many registrants.
    pub fn run(&mut self, sender: Nx, cmd: &Cmd, ports: &[u16], room: usize) -> Outcome {
        let mut out = Outcome::default();
        let old = self.clone();
        out.answer = self.dispatch(sender, cmd, ports, room, &mut out);
        // Everything of the copy is gone or confirmed, and the sender or whoever is registered has spoken for itself.
        if self.lost == Loss::Each && self.regs.iter().all(|r| !r.old) {
            let spoke_before = old.regs.iter().any(|r| r.who == sender && !r.old);
            if spoke_before || !self.regs.is_empty() {
                self.lost = Loss::No;
            }
        }
        if out.answer != "GOOD" {
            *self = old;
            assert!(out.attentions.is_empty() && out.aborted.is_empty());
        }
        out.attentions.sort();
        out.aborted.sort();
        out
    }

    fn dispatch(
        &mut self,
        sender: Nx,
        cmd: &Cmd,
        ports: &[u16],
        room: usize,
        out: &mut Outcome,
    ) -> String {
        if self.fenced.contains(&host(sender.0)) {
            return "CONFLICT".into();
        }
        let is_replace = matches!(cmd, Cmd::Basic { sa: 8, .. });
        // 5.13.5.3.2: all but REPLACE LOST RESERVATION of our commands; and registering, where that confirms.
        let is_register = matches!(cmd, Cmd::Basic { sa: 0 | 6, .. });
        if self.is_told(sender) && !is_replace && !(is_register && self.lost == Loss::Each) {
            return "7/44/01".into();
        }
        match cmd {
            Cmd::Reserve | Cmd::Release => self.spc2_command(sender, matches!(cmd, Cmd::Reserve)),
            // SPC-2 5.5.1: while any RESERVE is in force every PERSISTENT RESERVE OUT conflicts.
            _ if self.spc2.is_some() => "CONFLICT".into(),
            Cmd::Move {
                rk,
                sark,
                unreg,
                aptpl,
                to,
            } => self.register_and_move(sender, (*rk, *sark), *unreg, *aptpl, *to, ports, room),
            Cmd::Basic {
                sa,
                scope,
                ty,
                rk,
                sark,
                all_tg_pt,
                aptpl,
                spec_i_pt,
            } => match sa {
                0 | 6 => {
                    let spec = spec_i_pt.as_deref();
                    self.register(
                        sender,
                        *sa,
                        (*rk, *sark),
                        *all_tg_pt,
                        *aptpl,
                        spec,
                        ports,
                        room,
                        out,
                    )
                }
                8 => self.replace_lost(
                    sender,
                    (*scope, *ty),
                    (*rk, *sark),
                    *all_tg_pt,
                    *aptpl,
                    spec_i_pt.is_some(),
                ),
                _ => {
                    // 5.13.7: any other service action needs a registration, 6.16.3: and its key.
                    if !self.registered(sender) || self.key(sender) != *rk {
                        return "CONFLICT".into();
                    }
                    // Table 66.
                    if *sa == 1 && self.reservation.is_some() && !self.holds(sender) {
                        return "CONFLICT".into();
                    }
                    if spec_i_pt.is_some() {
                        return "5/26/00 list 20.3".into();
                    }
                    match sa {
                        1 => self.reserve(sender, *scope, *ty),
                        2 => self.release(sender, *scope, *ty, out),
                        3 => self.clear(sender, out),
                        4 => self.preempt(sender, *scope, *ty, *sark, false, out),
                        5 => self.preempt(sender, *scope, *ty, *sark, true, out),
                        _ => unreachable!(),
                    }
                }
            },
        }
    }

    /// SPC-2 RESERVE and RELEASE with SPC-4 5.13.3.
    fn spc2_command(&mut self, sender: Nx, reserve: bool) -> String {
        if self.holds(sender) {
            return "GOOD".into();
        }
        if let Some((5..=8, _)) = self.reservation
            && self.registered(sender)
        {
            return "GOOD".into();
        }
        if !self.regs.is_empty() {
            return "CONFLICT".into();
        }
        match (reserve, self.spc2) {
            (true, None) => self.spc2 = Some(sender),
            (true, Some(h)) if h != sender => return "CONFLICT".into(),
            (false, Some(h)) if h == sender => self.spc2 = None,
            _ => {}
        }
        "GOOD".into()
    }

    /// Tables 67, 68 and 69.
    #[expect(clippy::too_many_arguments)]
    fn register(
        &mut self,
        sender: Nx,
        sa: u8,
        (rk, sark): (u64, u64),
        all_tg_pt: bool,
        aptpl: bool,
        spec: Option<&[u8]>,
        ports: &[u16],
        room: usize,
        out: &mut Outcome,
    ) -> String {
        let was = self.key(sender);
        if sa == 0 && rk != was {
            return "CONFLICT".into();
        }
        if sa == 6 && spec.is_some() {
            return "5/26/00 list 20.3".into();
        }
        if was == 0 && sark == 0 {
            return if self.lost == Loss::No {
                "GOOD"
            } else {
                "7/44/01"
            }
            .into();
        }
        if self.lost != Loss::No && spec.is_some() {
            return "5/26/00 list 20.3".into();
        }
        if was != 0 && spec.is_some() {
            return "5/26/00 list 20.3".into();
        }
        let mut through = vec![sender.1];
        if all_tg_pt {
            through.extend(ports.iter().filter(|p| **p != sender.1));
        }
        // The same request through the other ports must not meet another key there.
        for p in &through {
            let there = self.key((sender.0, *p));
            if sa == 0 && there != 0 && there != rk {
                return "CONFLICT".into();
            }
        }
        if sark == 0 {
            let had = self.reservation;
            for p in &through {
                self.regs.retain(|r| r.who != (sender.0, *p));
            }
            // 5.13.11.2.3
            if let Some((ty, h)) = had {
                if ty >= 7 && self.regs.is_empty() {
                    self.reservation = None;
                }
                if ty < 7 && !self.registered(h) {
                    self.reservation = None;
                    if ty >= 5 {
                        for r in self.regs.clone() {
                            self.tell(out, r.who, sender, "2A/04");
                        }
                    }
                }
            }
        } else {
            let mut initiators = vec![sender.0];
            for i in spec.unwrap_or(&[]) {
                if self.fenced.contains(&host(*i)) {
                    return "5/26/00 list 28".into();
                }
                for p in &through {
                    if *i != sender.0 && self.registered((*i, *p)) {
                        return "5/26/00 list 28".into();
                    }
                }
                initiators.push(*i);
            }
            let before = self.regs.len();
            for i in initiators {
                for p in &through {
                    self.regs.retain(|r| r.who != (i, *p));
                    self.regs.push(Reg {
                        who: (i, *p),
                        key: sark,
                        all_tg_pt,
                        old: false,
                    });
                }
            }
            if self.regs.len() > before && self.regs.len() > room {
                return "5/55/04".into();
            }
        }
        self.aptpl = aptpl;
        self.prgeneration = self.prgeneration.wrapping_add(1);
        "GOOD".into()
    }

    /// Table 70 and 5.13.8.
    #[expect(clippy::too_many_arguments)]
    fn register_and_move(
        &mut self,
        sender: Nx,
        (rk, sark): (u64, u64),
        unreg: bool,
        aptpl: bool,
        to: Nx,
        ports: &[u16],
        room: usize,
    ) -> String {
        if !self.registered(sender) || rk != self.key(sender) {
            return "CONFLICT".into();
        }
        let Some((ty, holder)) = self.reservation else {
            return "5/24/00 cdb 1.4".into();
        };
        if ty >= 7 || holder != sender {
            return "CONFLICT".into();
        }
        if sark == 0 {
            return "5/26/00 list 8".into();
        }
        if to.0 == sender.0 || self.fenced.contains(&host(to.0)) {
            return "5/26/00 list 24".into();
        }
        if !ports.contains(&to.1) {
            return "5/26/00 list 18".into();
        }
        // Nobody is confirmed by another.
        if self.lost != Loss::No && self.is_told(to) {
            return "5/26/00 list 24".into();
        }
        let fresh = !self.registered(to);
        self.aptpl = aptpl;
        self.regs.retain(|r| r.who != to);
        self.regs.push(Reg {
            who: to,
            key: sark,
            all_tg_pt: false,
            old: false,
        });
        self.reservation = Some((ty, to));
        if unreg {
            self.regs.retain(|r| r.who != sender);
        }
        if fresh && self.regs.len() > room {
            return "5/55/04".into();
        }
        self.prgeneration = self.prgeneration.wrapping_add(1);
        "GOOD".into()
    }

    fn bad_scope_or_type(scope: u8, ty: u8) -> Option<String> {
        if scope != 0 {
            return Some("5/24/00 cdb 2.7".into());
        }
        if ![1, 3, 5, 6, 7, 8].contains(&ty) {
            return Some("5/24/00 cdb 2.3".into());
        }
        None
    }

    /// 5.13.9
    fn reserve(&mut self, sender: Nx, scope: u8, ty: u8) -> String {
        if let Some(refusal) = Self::bad_scope_or_type(scope, ty) {
            return refusal;
        }
        match self.reservation {
            None => self.reservation = Some((ty, sender)),
            Some((existing, _)) if existing == ty => {}
            Some(_) => return "CONFLICT".into(),
        }
        "GOOD".into()
    }

    /// 5.13.11.2.2
    fn release(&mut self, sender: Nx, scope: u8, ty: u8, out: &mut Outcome) -> String {
        if self.holds(sender) {
            let existing = self.reservation.expect("it is held").0;
            if scope != 0 || ty != existing {
                return "5/26/04".into();
            }
            self.reservation = None;
            if existing >= 5 {
                for r in self.regs.clone() {
                    self.tell(out, r.who, sender, "2A/04");
                }
            }
        }
        "GOOD".into()
    }

    /// 5.13.11.2.7
    fn clear(&mut self, sender: Nx, out: &mut Outcome) -> String {
        for r in std::mem::take(&mut self.regs) {
            self.tell(out, r.who, sender, "2A/03");
        }
        self.reservation = None;
        self.prgeneration = self.prgeneration.wrapping_add(1);
        "GOOD".into()
    }

    /// Table 72, figure 9, 5.13.11.2.4.3, 5.13.11.2.5, 5.13.11.2.6.
    fn preempt(
        &mut self,
        sender: Nx,
        scope: u8,
        ty: u8,
        sark: u64,
        abort: bool,
        out: &mut Outcome,
    ) -> String {
        let all_registrants = matches!(self.reservation, Some((7 | 8, _)));
        if sark == 0 && !all_registrants {
            return "5/26/00 list 8".into();
        }
        if sark != 0 && !self.regs.iter().any(|r| r.key == sark) {
            return "CONFLICT".into();
        }
        let hit: Vec<Nx> = self
            .regs
            .iter()
            .filter(|r| sark == 0 || r.key == sark)
            .map(|r| r.who)
            .collect();
        let takes_over = match self.reservation {
            None => false,
            Some((7 | 8, _)) => sark == 0,
            Some((_, holder)) => self.key(holder) == sark,
        };
        if takes_over {
            if let Some(refusal) = Self::bad_scope_or_type(scope, ty) {
                return refusal;
            }
            let old_type = self.reservation.expect("it is held").0;
            for n in &hit {
                if *n != sender {
                    self.regs.retain(|r| r.who != *n);
                    self.tell(out, *n, sender, "2A/05");
                }
            }
            self.reservation = Some((ty, sender));
            if old_type != ty {
                for r in self.regs.clone() {
                    self.tell(out, r.who, sender, "2A/04");
                }
            }
        } else {
            for n in &hit {
                self.regs.retain(|r| r.who != *n);
                self.tell(out, *n, sender, "2A/05");
            }
            // 5.13.10: not until the registrations of all holders are removed.
            if all_registrants && self.regs.is_empty() {
                self.reservation = None;
            }
        }
        if abort {
            out.aborted = hit;
        }
        self.prgeneration = self.prgeneration.wrapping_add(1);
        "GOOD".into()
    }

    /// 5.13.11.3 and table 66.
    fn replace_lost(
        &mut self,
        sender: Nx,
        (scope, ty): (u8, u8),
        (rk, sark): (u64, u64),
        all_tg_pt: bool,
        aptpl: bool,
        spec_i_pt: bool,
    ) -> String {
        if self.lost == Loss::No {
            return if self.registered(sender) {
                "5/26/04"
            } else {
                "CONFLICT"
            }
            .into();
        }
        if rk != 0 {
            return "5/26/00 list 0".into();
        }
        if sark == 0 {
            return "5/26/00 list 8".into();
        }
        if all_tg_pt {
            return "5/26/00 list 20.2".into();
        }
        if spec_i_pt {
            return "5/26/00 list 20.3".into();
        }
        if let Some(refusal) = Self::bad_scope_or_type(scope, ty) {
            return refusal;
        }
        self.regs = vec![Reg {
            who: sender,
            key: sark,
            all_tg_pt: false,
            old: false,
        }];
        self.reservation = Some((ty, sender));
        self.prgeneration = 0;
        self.aptpl = aptpl;
        self.lost = Loss::No;
        "GOOD".into()
    }

    /// Resets and losses (SPC-2 5.5.1, SPC-4 5.13.5.1, 5.13.11.2.1, 6.15.2).
    pub fn reset(&mut self) {
        self.spc2 = None;
    }

    pub fn nexus_loss(&mut self, who: Nx) {
        if self.spc2 == Some(who) {
            self.spc2 = None;
        }
    }

    pub fn power_on(&mut self, persist_always: bool) {
        self.spc2 = None;
        self.prgeneration = 0;
        if !self.aptpl && !persist_always {
            self.regs.clear();
            self.reservation = None;
        }
    }

    /// Only when something was lost; then everybody who is registered gets to know it (2Ah/03h).
    pub fn loss_accepted(&mut self) -> Outcome {
        let mut out = Outcome::default();
        if self.lost != Loss::No {
            self.lost = Loss::No;
            for r in &self.regs {
                out.attentions.push((r.who, "2A/03"));
            }
            out.attentions.sort();
            self.regs.clear();
            self.reservation = None;
            self.prgeneration = self.prgeneration.wrapping_add(1);
        }
        out
    }

    /// The hosts are fenced: nothing of them is left, and the first heir (a host) that is registered inherits.
    pub fn fence(&mut self, hosts: &[u8], heirs: &[u8]) -> Outcome {
        let mut out = Outcome::default();
        self.fenced.extend(hosts);
        let fenced = self.fenced.clone();
        let is_gone = |who: Nx| fenced.contains(&host(who.0));
        if self.spc2.is_some_and(is_gone) {
            self.spc2 = None;
        }
        let gone: Vec<Nx> = self
            .regs
            .iter()
            .map(|r| r.who)
            .filter(|n| is_gone(*n))
            .collect();
        self.regs.retain(|r| !is_gone(r.who));
        if gone.is_empty() {
            return out;
        }
        if let Some((ty, holder)) = self.reservation {
            if ty >= 7 && self.regs.is_empty() {
                self.reservation = None;
            }
            if ty < 7 && is_gone(holder) {
                self.reservation = None;
                for heir in heirs {
                    let of_heir = self
                        .regs
                        .iter()
                        .map(|r| r.who)
                        .filter(|n| host(n.0) == *heir);
                    if let (None, Some(first)) = (self.reservation, of_heir.min()) {
                        self.reservation = Some((ty, first));
                    }
                }
                if self.reservation.is_none() && ty >= 5 {
                    for r in &self.regs {
                        out.attentions.push((r.who, "2A/04"));
                    }
                }
            }
        }
        for n in gone {
            out.attentions.push((n, "2A/05"));
            out.aborted.push(n);
        }
        out.attentions.sort();
        out.aborted.sort();
        self.prgeneration = self.prgeneration.wrapping_add(1);
        // Whoever is left and has spoken for itself was waiting for the fenced ones only.
        let all_confirmed = !self.regs.is_empty() && self.regs.iter().all(|r| !r.old);
        if self.lost == Loss::Each && all_confirmed {
            self.lost = Loss::No;
        }
        out
    }

    pub fn unfence(&mut self, hosts: &[u8]) {
        self.fenced.retain(|fenced| !hosts.contains(fenced));
    }

    /// The driver reserves for `who`.
    pub fn own(&mut self, who: Nx) {
        let fenced = self.fenced.contains(&host(who.0));
        if self.lost == Loss::No && self.regs.is_empty() && self.spc2.is_none() && !fenced {
            self.spc2 = Some(who);
        }
    }

    /// `each`: until each has registered anew; else as the standard has it.
    pub fn information_lost(&mut self, each: bool) {
        self.spc2 = None;
        self.lost = if each { Loss::Each } else { Loss::Strict };
        for r in &mut self.regs {
            r.old = each;
        }
    }
}
