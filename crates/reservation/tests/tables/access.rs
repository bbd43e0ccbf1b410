//! Operation code × reservation type × role, and the whole access table as the documentation shows it.

use std::fmt::Write as _;

use reservation::access::{self, Column, TABLE};
use reservation::{
    InitiatorPort, Key, LuReservations, Nexus, Registrant, Reservation, ReservationType, State,
};

fn nexus(name: &str) -> Nexus {
    Nexus {
        initiator: InitiatorPort {
            name: name.into(),
            isid: [0; 6],
        },
        target_port: 1,
    }
}

/// A logical unit with two registrants, `holder` and `registrant`, and a reservation of this type.
fn reserved(kind: ReservationType) -> LuReservations {
    let registrant = Registrant {
        key: Key(1),
        all_target_ports: false,
    };
    let holder = (!kind.is_all_registrants()).then(|| nexus("holder"));
    LuReservations::from(State {
        registrants: [
            (nexus("holder"), registrant),
            (nexus("registrant"), registrant),
        ]
        .into(),
        reservation: Some(Reservation { kind, holder }),
        ..State::default()
    })
}

/// For each type the marks of a holder, a registrant and a stranger; then a nexus under another's RESERVE, and any
/// nexus while reservations are lost and while they cannot be read.
#[test]
fn operation_code_by_type_by_role() {
    let mut columns = Vec::new();
    for kind in ReservationType::ALL {
        let lu = reserved(kind);
        columns.push(
            ["holder", "registrant", "stranger"]
                .map(|role| access::column(&lu, &nexus(role)))
                .to_vec(),
        );
    }
    columns.push(vec![Column::Scsi2Other]);
    columns.push(vec![Column::InformationLost]);
    columns.push(vec![Column::NotReady]);
    columns.push(vec![Column::Fenced]);
    columns.push(vec![Column::Unconfirmed]);

    let mut text = String::from(
        "h holder, r registrant, s stranger; A allowed, . refused; w writes the medium\n\
         S2 another nexus's RESERVE, Lo reservations lost, NR reservations cannot be read,\n\
         Fe the initiator is fenced, Un reservations lost and not registered since\n\n\
         WE  EA  WE- EA- WE- EA- S2 Lo NR Fe Un\n\
         \x20       RO  RO  AR  AR\n\
         hrs hrs hrs hrs hrs hrs\n",
    );
    for row in TABLE {
        let marks: Vec<_> = columns
            .iter()
            .map(|columns| access::render_role(row, columns))
            .collect();
        let _ = writeln!(
            text,
            "{}  {}  {}  {}  {}  {}  {} {row}",
            marks[..6].join(" "),
            marks[6],
            marks[7],
            marks[8],
            marks[9],
            marks[10],
            if row.writes_medium() { "w" } else { "." }
        );
    }
    crate::assert_table("operation_code_by_type_by_role", &text);
}

/// `docs/access-table.md` holds the table as it is. To bring it up to date run this test with `UPDATE_DOCS=1`.
#[test]
fn documentation_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/access-table.md");
    let (start, end) = ("<!-- table -->\n", "<!-- end of table -->\n");
    let document = std::fs::read_to_string(path).unwrap();
    let (head, rest) = document.split_once(start).unwrap();
    let (_, tail) = rest.split_once(end).unwrap();
    let current = format!("{head}{start}{}{end}{tail}", access::render_markdown());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &current).unwrap();
    } else {
        assert!(
            document == current,
            "docs/access-table.md is out of date: run this test with UPDATE_DOCS=1"
        );
    }
}
