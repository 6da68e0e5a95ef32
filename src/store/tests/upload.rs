//! Uploads: invisible until published, complete, and published only once.

use super::*;

#[test]
fn small_pieces_are_coalesced_and_written_completely() {
    let folder = Folder::new("trickle");
    let mut store = folder.open();
    let body: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
    for piece in [1, 7, 2047, 2048, 2049, 10_000] {
        let at = format!("o/r{piece}/n");
        let mut upload = store.begin(body.len() as u64).unwrap();
        for bytes in body.chunks(piece) {
            store.append(&mut upload, bytes).unwrap();
        }
        let written = sys::stat_open(upload.file()).unwrap().size;
        assert!(written + 2048 > body.len() as u64, "{piece}: {written}");
        if written < body.len() as u64 {
            let early = store.publish(&upload, &path(&at), true, sys::now().wall);
            assert!(early.is_err(), "nothing partial gets a name");
        }
        store.complete(&mut upload, None).unwrap();
        store
            .publish(&upload, &path(&at), true, sys::now().wall)
            .unwrap();
        store.end(upload);
        assert!(fs::read(folder.0.join(at)).unwrap() == body, "{piece}");
    }
}

#[test]
fn an_upload_is_invisible_until_it_is_published() {
    let folder = Folder::new("publish");
    let mut store = folder.open();
    let mut upload = store.begin(5).unwrap();
    store.append(&mut upload, b"hello").unwrap();
    store.complete(&mut upload, Some("image/jpeg")).unwrap();
    assert_eq!(folder.tree(), Vec::<String>::new());
    store
        .publish(&upload, &path("o/r/n"), true, sys::now().wall)
        .unwrap();
    store.end(upload);
    assert_eq!(folder.tree(), ["o/", "o/r/", "o/r/n"]);
    let file = store.download(&path("o/r/n")).unwrap().unwrap();
    assert_eq!(file.size, 5);
    assert_eq!(fs::read(folder.0.join("o/r/n")).unwrap(), b"hello");
    assert!(store.exists(&path("o/r/n")).unwrap());
    assert!(!store.exists(&path("o/r/m")).unwrap());
    assert!(!store.exists(&path("p/r/m")).unwrap());
}

#[test]
fn an_aborted_upload_leaves_nothing() {
    let folder = Folder::new("abort");
    let mut store = folder.open();
    for naming in [store.naming, Naming::Temporary] {
        store.naming = naming;
        let mut upload = store.begin(5).unwrap();
        store.append(&mut upload, b"hel").unwrap();
        store.complete(&mut upload, None).unwrap();
        store.end(upload);
        assert_eq!(folder.tree(), Vec::<String>::new());
        assert_eq!(fs::read_dir(folder.0.join(".upslot")).unwrap().count(), 0);
        assert_eq!(store.disk.unwritten, 0);
    }
}

#[test]
fn the_first_complete_upload_wins() {
    let folder = Folder::new("taken");
    let mut store = folder.open();
    for (at, naming) in [
        ("a/r/n", store.naming),
        ("b/r/n", Naming::Proc),
        ("c/r/n", Naming::Temporary),
    ] {
        store.naming = naming;
        put(&mut store, at, b"first").unwrap();
        assert!(
            matches!(put(&mut store, at, b"second"), Err(PublishError::Taken)),
            "{naming:?}"
        );
        assert_eq!(fs::read(folder.0.join(at)).unwrap(), b"first");
    }
    assert_eq!(fs::read_dir(folder.0.join(".upslot")).unwrap().count(), 0);
}

#[test]
fn a_failed_publication_leaves_no_folder() {
    let folder = Folder::new("no-folder");
    let mut store = folder.open();
    folder.file("o/file", 1, 0);
    assert!(matches!(
        put(&mut store, "o/file/n", b"x"),
        Err(PublishError::Io(_))
    ));
    // A folder in place of the file.
    fs::create_dir_all(folder.0.join("p/r/n")).unwrap();
    assert!(matches!(
        put(&mut store, "p/r/n", b"x"),
        Err(PublishError::Taken)
    ));
    assert_eq!(folder.tree(), ["o/", "o/file", "p/", "p/r/", "p/r/n/"]);
    put(&mut store, "q/r/n", b"x").unwrap();
    store.unpublish(&path("q/r/n"), sys::monotonic());
    assert_eq!(folder.tree(), ["o/", "o/file", "p/", "p/r/", "p/r/n/"]);
}

#[test]
fn publishing_returns_the_changed_folders() {
    let folder = Folder::new("changed");
    let mut store = folder.open();
    let identity = |at: &str| sys::stat(&folder.0.join(at)).unwrap().identity;
    for (at, changed) in [
        ("o/r/n", &["", "o", "o/r"][..]),
        ("o/s/n", &["o", "o/s"]),
        ("o/s/m", &["o/s"]),
        ("o/n", &["o"]),
        ("p/n", &["", "p"]),
        ("q/1/2/n", &["", "q", "q/1", "q/1/2"]),
        ("q/1/3/n", &["q/1", "q/1/3"]),
    ] {
        let mut upload = store.begin(1).unwrap();
        store.append(&mut upload, b"x").unwrap();
        store.complete(&mut upload, None).unwrap();
        let published = store
            .publish(&upload, &path(at), true, sys::now().wall)
            .unwrap();
        store.end(upload);
        let told = published.folders.iter();
        let told: Vec<_> = told.map(|f| sys::stat_open(f).unwrap().identity).collect();
        let changed: Vec<_> = changed.iter().map(|at| identity(at)).collect();
        assert_eq!(told, changed, "{at}");
    }
}

#[test]
fn a_file_that_is_not_synced_is_published_in_old_and_new_folders() {
    let folder = Folder::new("not-synced");
    let mut store = folder.open();
    for naming in [store.naming, Naming::Proc, Naming::Temporary] {
        store.naming = naming;
        let published = ["o/r/n", "o/r/m", "o/s/n", "p/n"]
            .map(|at| put_and(&mut store, at, b"x", false).is_ok());
        assert_eq!(published, [true; 4], "{naming:?}");
        let taken = put_and(&mut store, "o/r/n", b"y", false);
        assert!(matches!(taken, Err(PublishError::Taken)), "{naming:?}");
        for at in ["o/r/n", "o/r/m", "o/s/n", "p/n"] {
            assert!(
                store.unpublish(&path(at), std::time::Instant::now()),
                "{at}"
            );
        }
        assert!(folder.tree().is_empty(), "{:?}", folder.tree());
    }
}

#[test]
fn a_planted_link_is_not_followed_by_a_publication() {
    let folder = Folder::new("planted");
    let mut store = folder.open();
    let outside = Folder::new("planted-outside");
    fs::create_dir_all(outside.0.join("r")).unwrap();
    fs::create_dir_all(folder.0.join("o/s")).unwrap();
    let plant = |to: PathBuf, at: &str| std::os::unix::fs::symlink(to, folder.0.join(at)).unwrap();
    plant(outside.0.clone(), "p");
    plant(outside.0.join("r"), "o/r");
    plant(outside.0.join("r/n"), "o/s/n");
    plant(outside.0.join("not there"), "o/t");
    for (naming, sync) in [
        (store.naming, true),
        (store.naming, false),
        (Naming::Proc, true),
        (Naming::Temporary, true),
    ] {
        store.naming = naming;
        for (at, taken) in [
            ("p/r/n", false),
            ("p/new/n", false),
            ("p/n", false),
            ("o/r/n", false),
            ("o/r/new/n", false),
            ("o/t/n", false),
            ("o/s/n", true),
        ] {
            let put = put_and(&mut store, at, b"x", sync);
            assert_eq!(matches!(put, Err(PublishError::Taken)), taken, "{at}");
            assert!(put.is_err(), "{at} {naming:?} {sync}");
            assert!(store.exists(&path(at)).unwrap(), "{at}");
        }
    }
    assert_eq!(outside.tree(), ["r/"]);
    assert_eq!(folder.tree(), ["o/", "o/r", "o/s/", "o/s/n", "o/t", "p"]);
}

#[test]
fn empty_folders_are_removed_even_if_the_inner_one_is_missing() {
    let folder = Folder::new("no-inner");
    let mut store = folder.open();
    fs::create_dir_all(folder.0.join("o")).unwrap();
    store.unpublish(&path("o/r/n"), sys::monotonic());
    assert!(folder.tree().is_empty(), "{:?}", folder.tree());
    folder.file("p/s/n", 1, 0);
    store.unpublish(&path("p/r/n"), sys::monotonic());
    assert_eq!(folder.tree(), ["p/", "p/s/", "p/s/n"]);
}
