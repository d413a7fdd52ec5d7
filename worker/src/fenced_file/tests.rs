use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn commit(token: i64) -> Commit {
    Commit { wait: Duration::from_millis(50), ..Commit::new(Token(token)) }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_and_nothing_is_left_beside_it_but_its_fence() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("report.md");
    let file = FencedFile::at(&path).unwrap();
    assert_eq!(file.token().unwrap(), None);
    let made = file.commit(Cursor::new("one"), &commit(5)).unwrap();
    assert_eq!((made.bytes, file.sha256().unwrap()), (3, Some(made.sha256)));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    file.commit(Cursor::new("two"), &commit(5)).unwrap();
    file.commit(Cursor::new("three"), &commit(7)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "three");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(file.token().unwrap(), Some(Token(7)));
    assert_eq!(names(scratch.path()), [".report.md.fence", "report.md"]);
}

#[test]
fn an_older_token_changes_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let file = FencedFile::at(scratch.path().join("f")).unwrap();
    file.commit(Cursor::new("new"), &commit(7)).unwrap();
    let error = file.commit(Cursor::new("old"), &commit(6)).unwrap_err();
    assert!(matches!(error, FencedFileError::Stale { given: Token(6), highest: Token(7), .. }), "{error}");
    assert!(matches!(file.commit(Cursor::new(""), &commit(0)), Err(FencedFileError::Token(Token(0)))));
    assert_eq!(fs::read_to_string(file.path()).unwrap(), "new");
    assert_eq!(names(scratch.path()), [".f.fence", "f"]);
}

#[test]
fn contents_that_were_made_from_another_file_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let file = FencedFile::at(scratch.path().join("f")).unwrap();
    let expect = |expected| Commit { expected: Some(expected), ..commit(1) };
    let first = file.commit(Cursor::new("a"), &expect(Expected::Absent)).unwrap();
    let error = file.commit(Cursor::new("b"), &expect(Expected::Absent)).unwrap_err();
    assert!(
        matches!(&error, FencedFileError::Changed { found: Some(found), .. } if *found == first.sha256),
        "{error}"
    );
    let second = file.commit(Cursor::new("b"), &expect(Expected::Contents(first.sha256))).unwrap();
    assert!(file.commit(Cursor::new("c"), &expect(Expected::Contents(first.sha256))).is_err());
    fs::remove_file(file.path()).unwrap();
    let error = file.commit(Cursor::new("c"), &expect(Expected::Contents(second.sha256))).unwrap_err();
    assert!(error.to_string().contains("is not there"), "{error}");
    assert_eq!(names(scratch.path()), [".f.fence"]);
}

#[test]
fn however_it_is_named_a_file_has_one_fence() {
    let scratch = tempfile::tempdir().unwrap();
    let real = scratch.path().join("real");
    fs::create_dir(&real).unwrap();
    symlink(&real, scratch.path().join("way")).unwrap();
    FencedFile::at(real.join("f")).unwrap().commit(Cursor::new("x"), &commit(9)).unwrap();
    symlink(real.join("f"), scratch.path().join("link")).unwrap();
    for name in ["way/f", "link", "real/../way/f"] {
        let file = FencedFile::at(scratch.path().join(name)).unwrap();
        assert_eq!(file.token().unwrap(), Some(Token(9)), "{name}");
        file.commit(Cursor::new(name), &commit(9)).unwrap();
    }
    assert!(scratch.path().join("link").is_symlink(), "the link is not replaced");
    assert_eq!(fs::read_to_string(real.join("f")).unwrap(), "real/../way/f");
}

#[test]
fn what_cannot_be_replaced_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    symlink(scratch.path().join("nowhere"), scratch.path().join("dangling")).unwrap();
    fs::create_dir(scratch.path().join("d")).unwrap();
    let refusal = |name: &str| FencedFile::at(scratch.path().join(name)).unwrap_err().to_string();
    for (name, part) in [
        ("d", "is a directory"),
        ("new/", "is a directory"),
        ("dangling", "symbolic link to something that is not there"),
        ("none/f", "cannot find"),
        (".f.fence", "belongs to a fence"),
    ] {
        assert!(refusal(name).contains(part), "{name}: {}", refusal(name));
    }
    assert!(FencedFile::at("").is_err());
    assert!(FencedFile::at("/dev/null").unwrap_err().to_string().contains("no ordinary file"));
    assert_eq!(names(scratch.path()), ["d", "dangling"]);
}

#[test]
fn too_much_and_what_cannot_be_read_leave_the_file_as_it_is() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the pipe broke"))
        }
    }
    let scratch = tempfile::tempdir().unwrap();
    let file = FencedFile::at(scratch.path().join("f")).unwrap();
    file.commit(Cursor::new("1234"), &Commit { max_bytes: 4, ..commit(1) }).unwrap();
    let error = file.commit(Cursor::new("12345"), &Commit { max_bytes: 4, ..commit(2) }).unwrap_err();
    assert!(matches!(error, FencedFileError::TooLarge { max_bytes: 4, .. }), "{error}");
    let error = file.commit(Cursor::new("12").chain(Broken), &commit(2)).unwrap_err();
    assert!(matches!(error, FencedFileError::Contents(_)), "{error}");
    assert_eq!(
        (fs::read_to_string(file.path()).unwrap().as_str(), file.token().unwrap()),
        ("1234", Some(Token(1)))
    );
    assert_eq!(names(scratch.path()), [".f.fence", "f"]);
}

#[test]
fn a_torn_slot_leaves_the_other_and_a_damaged_fence_is_not_guessed_at() {
    let scratch = tempfile::tempdir().unwrap();
    let file = FencedFile::at(scratch.path().join("f")).unwrap();
    file.commit(Cursor::new("a"), &commit(3)).unwrap();
    file.commit(Cursor::new("b"), &commit(4)).unwrap();
    let fence = scratch.path().join(".f.fence");
    let whole = fs::read(&fence).unwrap();
    // The second write went to the first slot.
    let mut torn = whole.clone();
    torn[20..40].fill(0);
    fs::write(&fence, &torn).unwrap();
    assert_eq!(file.token().unwrap(), Some(Token(3)));
    file.commit(Cursor::new("c"), &commit(4)).unwrap();
    assert_eq!(file.token().unwrap(), Some(Token(4)));
    fs::write(&fence, "somebody's notes").unwrap();
    let error = file.commit(Cursor::new("d"), &commit(9)).unwrap_err();
    assert!(matches!(error, FencedFileError::Damaged { .. }), "{error}");
    assert_eq!(fs::read_to_string(file.path()).unwrap(), "c");
}

#[test]
fn a_writer_that_is_stopped_in_the_middle_makes_others_wait_and_say_so() {
    let scratch = tempfile::tempdir().unwrap();
    let file = FencedFile::at(scratch.path().join("f")).unwrap();
    file.commit(Cursor::new("a"), &commit(1)).unwrap();
    let stopped = File::open(scratch.path().join(".f.fence")).unwrap();
    stopped.lock().unwrap();
    let error = file.commit(Cursor::new("b"), &commit(2)).unwrap_err();
    assert!(matches!(error, FencedFileError::Busy { .. }), "{error}");
    drop(stopped);
    file.commit(Cursor::new("b"), &commit(2)).unwrap();
    assert_eq!(names(scratch.path()), [".f.fence", "f"]);
}

#[test]
fn contents_are_nobody_elses_before_they_are_the_file() {
    struct Spy(PathBuf);
    impl Read for Spy {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            assert_eq!(fs::metadata(&self.0)?.permissions().mode() & 0o777, 0o600);
            Ok(0)
        }
    }
    let scratch = tempfile::tempdir().unwrap();
    let (path, stage) = (scratch.path().join("f"), scratch.path().join(".f.fence.0.new"));
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    // What a killed writer left.
    fs::write(&stage, "secret").unwrap();
    fs::set_permissions(&stage, fs::Permissions::from_mode(0o666)).unwrap();
    let file = FencedFile::at(&path).unwrap();
    file.commit(Spy(stage), &commit(1)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755, "it is this user's now");
    assert_eq!(names(scratch.path()), [".f.fence", "f"]);
}

#[test]
fn many_writers_at_once_leave_the_file_of_the_highest_token() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("f");
    std::thread::scope(|threads| {
        for writer in 0..8_i64 {
            let path = &path;
            threads.spawn(move || {
                let file = FencedFile::at(path).unwrap();
                for round in 0..25_i64 {
                    let token = round * 8 + writer + 1;
                    let contents = token.to_string().repeat(1_000);
                    let patient = Commit { wait: Duration::from_secs(60), ..commit(token) };
                    match file.commit(Cursor::new(contents), &patient) {
                        Ok(_) | Err(FencedFileError::Stale { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(fs::read_to_string(&path).unwrap(), "200".repeat(1_000));
    assert_eq!(names(scratch.path()), [".f.fence", "f"]);
}

#[test]
fn a_link_in_the_place_of_new_contents_is_not_followed() {
    let scratch = tempfile::tempdir().unwrap();
    let victim = scratch.path().join("victim");
    fs::write(&victim, "mine").unwrap();
    symlink(&victim, scratch.path().join(".f.fence.0.new")).unwrap();
    fs::hard_link(&victim, scratch.path().join(".f.fence.1.new")).unwrap();
    let file = FencedFile::at(scratch.path().join("f")).unwrap();
    file.commit(Cursor::new("x"), &commit(1)).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    assert_eq!(fs::read_to_string(file.path()).unwrap(), "x");
}

#[test]
fn long_names_have_fences_too() {
    let scratch = tempfile::tempdir().unwrap();
    let file = FencedFile::at(scratch.path().join("n".repeat(255))).unwrap();
    file.commit(Cursor::new("x"), &commit(1)).unwrap();
    assert_eq!(file.token().unwrap(), Some(Token(1)));
}

#[test]
fn a_hash_reads_as_it_is_written() {
    let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(Sha256::parse(text).unwrap().to_string(), text);
    assert!(Sha256::parse(&text[1..]).is_none() && Sha256::parse(&text.replace('b', "g")).is_none());
}
