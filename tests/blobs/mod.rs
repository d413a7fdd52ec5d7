//! Blobs: what every storage must do, seen from outside and run against each of the five; what becomes of them when a server
//! goes, a disk is full, a caller hangs up; uploads and downloads over the API; and the sweep.
//!
//! A behaviour is declared once, as in `suite`, and run against each storage.

mod api;
mod bed;
mod behaviours;
mod command;
mod full_disk;
mod gone;
mod memory;
mod owner;
mod payloads;
mod silent;
mod sweep;

/// Hands the list of all behaviours to a macro, behind what that one needs besides.
macro_rules! with_behaviours {
    ($then:ident!($($first:tt)*)) => {
        $then! { $($first)*
            what_was_put_comes_back,
            what_is_not_there_is_none,
            what_is_removed_is_gone_and_the_others_stay,
            a_list_goes_on_where_it_ended,
            an_upload_that_fails_leaves_nothing,
            a_call_that_is_dropped_leaves_nothing_that_cannot_be_removed,
            an_upload_that_is_removed_meanwhile_is_never_there,
            ids_that_differ_in_case_are_apart,
            ids_lead_nowhere_else,
            many_at_once_do_not_mix,
            opened_again_it_has_what_it_had,
            it_says_what_it_is_and_that_it_works,
        }
    };
}

/// One test a behaviour, each on storage of its own.
macro_rules! tests {
    ($fresh:expr; $($behaviour:ident,)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $behaviour() {
            let place = $fresh;
            crate::blobs::behaviours::$behaviour(&crate::blobs::bed::Bed::open(&place, "one").await).await;
        })*
    };
}

/// All of them in one test, one after the other on the same server.
macro_rules! together {
    ($server:expr; $($behaviour:ident,)*) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn all_behaviours() {
            let place = $server;
            $(
                eprintln!("{}", stringify!($behaviour));
                crate::blobs::behaviours::$behaviour(
                    &crate::blobs::bed::Bed::open(&place, stringify!($behaviour)).await,
                )
                .await;
            )*
        }
    };
}

mod files {
    with_behaviours! { tests!(crate::blobs::bed::Place::files();) }
}

mod sqlite {
    with_behaviours! { tests!(crate::blobs::bed::Place::sqlite();) }
}

mod local {
    with_behaviours! { tests!(crate::blobs::bed::Place::local();) }
}

mod postgres {
    with_behaviours! { together!(crate::blobs::bed::Place::postgres().await;) }
}

mod s3 {
    with_behaviours! { together!(crate::blobs::bed::Place::s3().await;) }
}
