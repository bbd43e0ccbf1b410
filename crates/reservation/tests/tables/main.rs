//! The two tables of this crate written out, to be read against the standard: what every command does in every kind
//! of state, and which commands pass which reservation.

mod access;
mod machine;

/// Compares with `snapshots/NAME.snap`; `INSTA_UPDATE=always` rewrites it.
fn assert_table(name: &str, text: &str) {
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
}
