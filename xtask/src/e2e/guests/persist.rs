//! `sg_persist`: every service action and every type, seen from two guests.

use anyhow::{Context, Result, ensure};

use super::lab::{Disk, Lab};
use crate::vm::guest::Guest;

const A: &str = "0xa1";
const B: &str = "0xb2";
const GOOD: i32 = 0;
/// sg3_utils' exit codes (sg_lib.h).
const ILLEGAL_REQUEST: i32 = 5;
const UNIT_ATTENTION: i32 = 6;
const RESERVATION_CONFLICT: i32 = 24;

/// A guest and its way to the disk.
struct Node<'a> {
    guest: &'a mut Guest,
    disk: String,
    sg: String,
}

impl Node<'_> {
    /// PERSISTENT RESERVE OUT, which must end as `expected`.
    fn out(&mut self, action: &str, expected: i32) -> Result<()> {
        let script = format!("sg_persist -n --out {action} {}", self.sg);
        let answer = self.guest.run(&script)?;
        ensure!(
            answer.code == expected,
            "on {}: '{script}' exited with {} instead of {expected}:\n{}",
            self.guest.name,
            answer.code,
            answer.text
        );
        Ok(())
    }

    /// PERSISTENT RESERVE IN.
    fn read(&mut self, action: &str) -> Result<String> {
        self.guest
            .ok(&format!("sg_persist -n --in {action} {}", self.sg))
    }

    /// Takes the pending unit attentions; returns their texts.
    fn attentions(&mut self) -> Result<String> {
        let mut texts = String::new();
        for _ in 0..4 {
            let answer = self.guest.run(&format!("sg_turs -vv {}", self.sg))?;
            if answer.code == GOOD {
                return Ok(texts);
            }
            ensure!(
                answer.code == UNIT_ATTENTION,
                "sg_turs exited with {}: {}",
                answer.code,
                answer.text
            );
            texts += &answer.text;
        }
        Ok(texts)
    }

    fn expect_attention(&mut self, what: &str) -> Result<()> {
        let texts = self.attentions()?;
        ensure!(
            texts.contains(what),
            "{} got no '{what}' but: {texts}",
            self.guest.name
        );
        Ok(())
    }

    fn expect_access(&mut self, situation: &str, read: bool, write: bool) -> Result<()> {
        self.attentions()?;
        let seen = (
            self.guest.can_read(&self.disk)?,
            self.guest.can_write(&self.disk)?,
        );
        ensure!(
            seen == (read, write),
            "{} {situation}: may (read, write) {seen:?}, should {:?}",
            self.guest.name,
            (read, write)
        );
        Ok(())
    }
}

fn nodes<'a>(lab: &'a mut Lab, disk: &Disk) -> Result<[Node<'a>; 2]> {
    lab.login(0, 1, disk)?;
    lab.login(1, 1, disk)?;
    let path = &disk.paths[0];
    let [first, second] = &mut lab.guests;
    let node = |guest: &'a mut Guest| -> Result<Node<'a>> {
        let sg = guest.generic(path)?;
        let mut node = Node {
            guest,
            disk: path.clone(),
            sg,
        };
        node.attentions()?;
        Ok(node)
    };
    Ok([node(first)?, node(second)?])
}

/// For each of the six types: what the holder, another registrant and a stranger may do.
pub fn types(lab: &mut Lab) -> Result<()> {
    let disk = lab.volume("types", 64)?;
    let [mut a, mut b] = nodes(lab, &disk)?;
    for (kind, stranger_reads, registrant_reads, registrant_writes) in [
        (1, true, true, false),
        (3, false, false, false),
        (5, true, true, true),
        (6, false, true, true),
        (7, true, true, true),
        (8, false, true, true),
    ] {
        let situation = |who: &str| format!("as {who} under type {kind}");
        a.out(&format!("--register --param-sark={A}"), GOOD)?;
        a.out(
            &format!("--reserve --param-rk={A} --prout-type={kind}"),
            GOOD,
        )?;
        a.expect_access(&situation("holder"), true, true)?;
        b.expect_access(&situation("stranger"), stranger_reads, false)?;
        b.out(&format!("--register --param-sark={B}"), GOOD)?;
        b.expect_access(
            &situation("registrant"),
            registrant_reads,
            registrant_writes,
        )?;
        let reservation = a.read("--read-reservation")?;
        let key = if kind >= 7 { "Key=0x0" } else { "Key=0xa1" };
        ensure!(reservation.contains(key), "type {kind}: {reservation}");
        a.out(
            &format!("--release --param-rk={A} --prout-type={kind}"),
            GOOD,
        )?;
        b.expect_access(&situation("registrant after release"), true, true)?;
        a.out(&format!("--clear --param-rk={A}"), GOOD)?;
        b.attentions()?;
    }
    Ok(())
}

/// Every service action of PERSISTENT RESERVE IN and OUT, with what it changes, whom it tells and what is refused.
pub fn service_actions(lab: &mut Lab) -> Result<()> {
    let disk = lab.volume("actions", 64)?;
    let [mut a, mut b] = nodes(lab, &disk)?;
    register(&mut a, &mut b)?;
    reserve_and_release(&mut a, &mut b)?;
    preempt(&mut a, &mut b)?;
    clear(&mut a, &mut b)?;
    register_and_move(&mut a, &mut b)?;
    specify_initiator_ports(&mut a, &mut b)?;
    // Nothing has been lost, so there is nothing to replace (docs/decisions/0003): a stranger has a conflict, a
    // registrant an illegal request.
    let replace = format!("--replace-lost --param-rk=0 --param-sark={A} --prout-type=5");
    a.out(&replace, RESERVATION_CONFLICT)?;
    a.out(&format!("--register --param-sark={A}"), GOOD)?;
    a.out(&replace, ILLEGAL_REQUEST)?;
    a.out(&format!("--clear --param-rk={A}"), GOOD)?;
    let capabilities = a.read("--report-capabilities")?;
    for part in [
        "Compatible Reservation Handling(CRH): 1",
        "Specify Initiator Ports Capable(SIP_C): 1",
        "All Target Ports Capable(ATP_C): 1",
        "Persist Through Power Loss Capable(PTPL_C): 1",
        "Write Exclusive, all registrants: 1",
        "Exclusive Access, all registrants: 1",
    ] {
        ensure!(
            capabilities.contains(part),
            "no '{part}' in\n{capabilities}"
        );
    }
    Ok(())
}

fn register(a: &mut Node, b: &mut Node) -> Result<()> {
    a.out(
        &format!("--register --param-rk=0x77 --param-sark={A}"),
        RESERVATION_CONFLICT,
    )?;
    a.out(&format!("--register --param-sark={A}"), GOOD)?;
    b.out(&format!("--register-ignore --param-sark={B}"), GOOD)?;
    let keys = a.read("--read-keys")?;
    ensure!(
        keys.contains("0xa1") && keys.contains("0xb2") && keys.contains("PR generation=0x2"),
        "{keys}"
    );
    // Another key, APTPL, and back.
    a.out(
        &format!("--register --param-rk={A} --param-sark=0xa9 --param-aptpl"),
        GOOD,
    )?;
    a.out(
        &format!("--register --param-rk={A} --param-sark=0xa8"),
        RESERVATION_CONFLICT,
    )?;
    let capabilities = a.read("--report-capabilities")?;
    ensure!(
        capabilities.contains("Persist Through Power Loss Active(PTPL_A): 1"),
        "{capabilities}"
    );
    a.out(&format!("--register-ignore --param-sark={A}"), GOOD)
}

fn reserve_and_release(a: &mut Node, b: &mut Node) -> Result<()> {
    a.out(&format!("--reserve --param-rk={A} --prout-type=5"), GOOD)?;
    a.out(&format!("--reserve --param-rk={A} --prout-type=5"), GOOD)?;
    a.out(
        &format!("--reserve --param-rk={A} --prout-type=1"),
        RESERVATION_CONFLICT,
    )?;
    b.out(
        &format!("--reserve --param-rk={B} --prout-type=5"),
        RESERVATION_CONFLICT,
    )?;
    b.out(&format!("--release --param-rk={B} --prout-type=5"), GOOD)?;
    let status = b.read("--read-full-status")?;
    ensure!(
        status.contains(&a.guest.initiator)
            && status.contains(&b.guest.initiator)
            && status.contains("Reservation holder"),
        "{status}"
    );
    a.out(
        &format!("--release --param-rk={A} --prout-type=1"),
        ILLEGAL_REQUEST,
    )?;
    a.out(&format!("--release --param-rk={A} --prout-type=5"), GOOD)?;
    b.expect_attention("Reservations released")?;
    let none = b.read("--read-reservation")?;
    ensure!(none.contains("there is NO reservation held"), "{none}");
    Ok(())
}

fn preempt(a: &mut Node, b: &mut Node) -> Result<()> {
    for action in ["--preempt", "--preempt-abort"] {
        a.out(&format!("--reserve --param-rk={A} --prout-type=1"), GOOD)?;
        b.out(
            &format!("{action} --param-rk={B} --param-sark=0x99 --prout-type=1"),
            RESERVATION_CONFLICT,
        )?;
        b.out(
            &format!("{action} --param-rk={B} --param-sark={A} --prout-type=5"),
            GOOD,
        )?;
        a.expect_attention("Registrations preempted")?;
        let reservation = b.read("--read-reservation")?;
        ensure!(
            reservation.contains("Key=0xb2")
                && reservation.contains("Write Exclusive, registrants only"),
            "{reservation}"
        );
        a.expect_access(&format!("after {action}"), true, false)?;
        b.expect_access(&format!("after {action}"), true, true)?;
        a.out(
            &format!("--release --param-rk={A} --prout-type=5"),
            RESERVATION_CONFLICT,
        )?;
        a.out(&format!("--register --param-sark={A}"), GOOD)?;
        b.out(&format!("--release --param-rk={B} --prout-type=5"), GOOD)?;
        a.attentions()?;
    }
    Ok(())
}

fn clear(a: &mut Node, b: &mut Node) -> Result<()> {
    a.out(&format!("--reserve --param-rk={A} --prout-type=3"), GOOD)?;
    b.out("--clear --param-rk=0x99", RESERVATION_CONFLICT)?;
    b.out(&format!("--clear --param-rk={B}"), GOOD)?;
    a.expect_attention("Reservations preempted")?;
    let keys = a.read("--read-keys")?;
    ensure!(
        keys.contains("there are NO registered reservation keys"),
        "{keys}"
    );
    Ok(())
}

/// The TransportID of this node, as sg_persist takes it.
fn transport_id(node: &mut Node) -> Result<String> {
    let status = node.read("--read-full-status")?;
    let id = status
        .lines()
        .filter_map(|line| line.split_once("unique port id: "))
        .map(|(_, id)| id.trim().to_owned())
        .find(|id| id.starts_with(&node.guest.initiator));
    id.with_context(|| format!("no TransportID of {} in\n{status}", node.guest.initiator))
}

fn register_and_move(a: &mut Node, b: &mut Node) -> Result<()> {
    a.out(&format!("--register --param-sark={A}"), GOOD)?;
    b.out(&format!("--register --param-sark={B}"), GOOD)?;
    let to = transport_id(b)?;
    let arguments = format!("--relative-target-port=1 --transport-id={to}");
    // Nothing is reserved, so there is nothing to move (SPC-4 5.13.8).
    a.out(
        &format!("--register-move --param-rk={A} --param-sark={B} {arguments}"),
        ILLEGAL_REQUEST,
    )?;
    a.out(&format!("--reserve --param-rk={A} --prout-type=1"), GOOD)?;
    a.out(
        &format!("--register-move --param-rk={A} --param-sark=0 {arguments}"),
        ILLEGAL_REQUEST,
    )?;
    a.out(
        &format!("--register-move --unreg --param-rk={A} --param-sark={B} {arguments}"),
        GOOD,
    )?;
    let reservation = b.read("--read-reservation")?;
    ensure!(
        reservation.contains("Key=0xb2"),
        "the reservation has not moved: {reservation}"
    );
    a.expect_access("after the reservation moved away", true, false)?;
    b.expect_access("after the reservation moved here", true, true)?;
    b.out(&format!("--clear --param-rk={B}"), GOOD)?;
    a.attentions().map(drop)
}

fn specify_initiator_ports(a: &mut Node, b: &mut Node) -> Result<()> {
    b.out(&format!("--register --param-sark={B}"), GOOD)?;
    let other = transport_id(b)?;
    b.out(&format!("--register --param-rk={B} --param-sark=0"), GOOD)?;
    a.out(
        &format!("--register --param-sark={A} --transport-id={other}"),
        GOOD,
    )?;
    let keys = a.read("--read-keys")?;
    ensure!(
        keys.matches("0xa1").count() == 2,
        "one command registers both: {keys}"
    );
    b.out(&format!("--register --param-rk={A} --param-sark={B}"), GOOD)?;
    a.out(&format!("--register --param-rk={A} --param-sark=0"), GOOD)?;
    a.out(
        &format!("--register --param-sark={A} --param-alltgpt"),
        GOOD,
    )?;
    let status = a.read("--read-full-status")?;
    ensure!(status.contains("All target ports bit set"), "{status}");
    a.out(&format!("--clear --param-rk={A}"), GOOD)?;
    b.expect_attention("Reservations preempted")
}
