//! Python scripts of the tests, with the packages of `tests/python-requirements.txt`.

use tokio::process::Command;

/// The command `python3`, to which arguments are added. The first call on a machine fetches the packages.
pub fn python() -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python"));
    command.kill_on_drop(true);
    command
}
