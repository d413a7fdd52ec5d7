//! What every store must do, seen from outside: one small function a behaviour, run against each backend.
//!
//! A backend is added with one line at the end of this file: with a test a behaviour, or, where servers are too slow to
//! start for each, with all behaviours in one test ([`together`]). A function that is missing from the list is dead code,
//! which the linter refuses.

mod breakers;
mod checkpoints;
mod claim;
mod costs;
mod enqueue;
mod gates;
mod handed_off;
mod locks;
mod lost;
mod operate;
mod policies;
mod presence;
mod read;
mod reap;
mod references;
mod reopen;
mod repeat;
mod restricted;
mod routes;
mod scopes;
mod settle;
mod takeover;
mod together;

/// Hands the list of all behaviours to a macro, behind what that one needs besides.
macro_rules! with_behaviours {
    ($then:ident!($($first:tt)*)) => {
        $then! { $($first)*
            enqueue {
                a_new_task_is_due_at_once,
                a_delayed_task_is_not_due_before_its_delay,
                the_same_task_again_is_a_duplicate,
                a_duplicate_of_a_finished_task_says_so_and_does_not_run_it_again,
                an_id_with_other_contents_is_refused,
                an_unknown_queue_is_refused,
                a_batch_is_answered_item_by_item,
                a_failure_waits_for_the_policys_delay,
                a_delay_longer_than_the_policys_wins,
                a_hint_is_the_floor_of_the_first_delay,
                attempts_made_elsewhere_are_counted_once,
                attempts_used_up_elsewhere_end_the_task_at_once,
                attempts_used_up_elsewhere_end_the_task_even_without_a_failure,
                a_failure_that_no_retry_can_mend_settles_at_once,
                a_hint_past_the_deadline_escalates,
                everything_given_is_kept,
                what_an_attempt_uses_is_told_with_each_of_them,
            }
            claim {
                tasks_of_a_lane_are_given_in_order_of_due_time,
                equal_due_times_are_given_in_order_of_arrival,
                higher_priority_goes_first,
                a_tenant_with_thousands_does_not_starve_one_with_three,
                single_claims_rotate_over_groups,
                avoided_dependencies_are_left_alone,
                avoided_lanes_hide_no_other_however_many_there_are,
                a_paused_queue_hands_out_nothing_until_it_is_resumed,
                a_claim_gets_no_more_than_it_asked_for,
                a_thousand_tasks_fit_into_one_claim,
                an_unknown_queue_has_nothing_due,
                a_claim_takes_from_its_own_queues_only,
                a_claim_learns_when_to_come_back,
                claims_of_one_batch_share_nothing,
                a_repeated_request_gets_the_same_leases,
                a_claim_with_a_request_is_filled_and_gets_no_task_twice,
                a_repeated_request_does_not_get_a_lease_that_was_lost_and_given_again,
                a_request_that_got_nothing_may_get_something_later,
                a_delay_does_not_use_up_the_policys_deadline,
                a_task_past_its_deadline_is_escalated_and_not_run,
                tasks_past_their_deadline_do_not_use_up_a_claim,
                large_payloads_bound_a_reply,
                the_claim_or_else_the_policy_sets_the_leases_length,
                every_lease_of_a_task_has_a_higher_epoch,
                a_lease_tells_its_handler_what_happened_before,
                callers_at_once_never_share_a_lease,
            }
            settle {
                a_snooze_past_the_deadline_escalates,
                an_extension_makes_a_lease_longer_and_never_shorter,
                only_the_holder_can_extend,
                a_settled_lease_cannot_be_extended,
                of_a_claim_only_those_that_are_settled_end,
                of_large_tasks_those_settle_that_are_still_held,
                a_lease_has_nothing_of_the_extension_of_the_one_before,
                done_keeps_the_result,
                done_without_a_result_is_done,
                a_failure_runs_again_after_the_policys_delay,
                a_hint_is_the_floor_of_every_delay,
                a_task_whose_attempts_are_used_up_is_dead,
                failures_of_one_class_are_counted_across_leases,
                a_tasks_own_backoff_takes_the_place_of_the_queues,
                decorrelated_delays_build_on_the_one_before,
                a_handler_can_rule_out_a_retry_or_ask_for_a_person,
                an_unretryable_failure_ends_the_task_at_its_first_attempt,
                a_snooze_charges_no_attempt,
                a_released_task_is_due_within_a_second_and_charges_no_attempt,
                what_is_taken_back_is_undelivered_and_due_within_a_second,
                only_the_first_call_of_a_task_is_no_retry,
                a_stale_or_forged_fence_changes_nothing,
                a_task_that_was_never_leased_cannot_be_settled,
                an_unknown_task_cannot_be_settled,
                settling_again_returns_the_first_settlement,
                settling_done_again_keeps_the_first_result,
                the_holder_before_cannot_settle_the_lease_after,
                one_stale_item_does_not_fail_its_neighbours,
                a_retry_that_would_come_too_late_escalates,
                a_task_can_fail_while_another_of_its_lane_waits,
            }
            reap {
                nothing_is_reaped_before_its_time,
                a_lease_that_nobody_started_is_undelivered_and_never_poison,
                a_lease_that_was_started_is_lost_and_charges_no_attempt,
                a_task_that_took_three_workers_with_it_is_poison,
                a_loss_that_the_worker_reports_counts_towards_poison,
                reaping_goes_on_while_the_queue_is_paused,
                whoever_lost_a_lease_cannot_settle_or_extend_it,
                a_late_worker_that_is_not_reaped_yet_may_still_settle,
                a_deadline_that_passes_while_a_queue_is_paused_is_seen,
                a_round_is_bounded_and_says_when_to_go_on,
                leases_of_an_agent_that_went_silent_end,
                an_agent_that_is_heard_from_keeps_its_leases,
                an_agent_that_comes_back_is_alive_again,
                silence_while_the_store_was_closed_proves_nothing,
                leases_of_one_run_of_an_agent_can_be_ended_early,
                a_worker_that_comes_back_in_time_keeps_what_was_ended_early,
                a_clock_that_steps_back_ends_no_lease,
            }
            presence {
                the_leases_of_a_run_whose_presence_is_over_end,
                a_run_that_arrived_again_since_keeps_its_leases,
                whoever_knows_the_last_arrival_ends_the_leases,
                an_arrival_is_one_run_s_own,
                arrivals_of_one_moment_differ,
                a_heartbeat_before_the_break_saves_no_leases,
                an_arrival_that_is_forgotten_by_now_still_ends_leases,
            }
            repeat {
                a_repeated_request_starts_nothing_that_is_too_late_by_now,
                a_repeated_request_gets_what_is_late_but_at_work,
                a_repeated_request_that_finds_all_too_late_stays_answered,
            }
            handed_off {
                a_task_handed_off_is_finished_and_keeps_its_payload,
                what_was_handed_off_is_not_handed_out_reaped_or_extended,
                a_failure_that_comes_back_reopens_the_task,
                what_comes_back_is_settled_by_any_ending,
                what_was_handed_off_is_settled_once_more_and_not_twice,
                within_one_batch_it_is_handed_off_and_comes_back,
                only_the_lease_that_handed_it_off_is_heard,
                a_failure_that_comes_back_uses_up_attempts,
                what_was_handed_off_is_forgotten_after_its_retention,
                what_was_handed_off_can_be_called_off,
                what_was_handed_off_can_be_sent_round_again,
                of_a_claim_some_are_handed_off_and_others_not,
            }
            routes {
                a_task_goes_on_in_the_lane_of_its_route,
                a_settlement_tells_where_its_attempt_went,
                a_failure_that_a_task_comes_with_sends_it_elsewhere,
                a_task_may_begin_on_a_later_route,
                routes_behind_shut_gates_are_skipped,
                a_tool_transaction_stays_on_its_route,
                what_is_isolated_waits_uncharged,
                whatever_is_no_failure_keeps_the_route,
                a_person_who_retries_begins_with_the_own_dependency,
                a_chain_that_changes_moves_nobody_before_the_next_turn,
                a_chain_that_changes_leads_nobody_back_to_what_failed,
                what_is_sent_to_an_isolated_dependency_begins_where_another_stands_in,
                what_is_handed_back_or_fails_at_an_isolated_dependency_goes_on_elsewhere,
                a_person_who_retries_sends_past_an_isolated_dependency,
                costs_are_kept_of_each_attempt_and_bound_the_whole,
                every_kind_of_charge_is_shown_and_bounded,
            }
            takeover {
                a_lease_taken_over_is_started_and_shown_as_its_takers,
                a_settlement_names_the_taker,
                of_one_claim_each_lease_is_put_down_to_its_own_holder,
                the_claimers_silence_ends_its_own_and_not_what_was_taken_over,
                the_takers_silence_ends_what_it_took_over,
                the_presence_that_counts_is_the_takers,
                the_presence_of_the_claimer_ends_nothing_that_was_taken_over,
                what_a_run_took_over_ends_with_it_in_whatever_claims_it_was,
                a_stale_fence_takes_nothing_over,
                who_started_it_first_has_the_lease,
                what_its_claimer_has_started_is_nobody_elses,
                a_claimer_may_take_its_own_lease,
                a_heartbeat_extends_what_was_taken_over_and_leaves_it_where_it_is,
                a_run_that_is_gone_and_takes_over_has_until_the_leases_end,
                a_repeated_request_gets_nothing_that_another_took_over,
                a_task_taken_over_can_be_called_off,
                the_lease_after_has_nothing_of_who_took_the_one_before_over,
                who_took_over_what_is_still_known_when_the_store_is_opened_again,
            }
            locks {
                locks_are_given_by_the_rules,
                a_lock_outlives_the_coordinator_that_gave_it,
                tokens_rise_though_the_clock_is_set_back,
                whoever_waits_is_told_in_order,
                who_is_late_and_who_is_not_the_owner_change_nothing,
                what_its_owner_was_not_told_of_is_taken_back,
                locks_are_counted_and_found_by_their_resource,
                ten_thousand_wait_and_no_more_and_are_served_in_order,
                of_a_long_line_all_that_may_share_are_served,
                a_clock_that_jumps_ends_locks_and_lowers_no_token,
            }
            operate {
                what_is_not_done_can_be_called_off,
                calling_off_twice_changes_nothing_more,
                the_worker_of_a_task_called_off_can_do_no_more_with_it,
                what_happens_to_a_waiting_task_is_not_put_down_to_an_agent,
                a_settled_failure_that_is_retried_gets_its_attempts_back,
                poison_that_is_retried_has_its_losses_forgiven,
                a_waiting_task_that_is_retried_becomes_due,
                what_runs_or_is_done_cannot_be_retried,
                every_settled_failure_can_be_retried,
                a_task_retried_after_its_deadline_gets_a_new_one,
                a_finished_task_is_forgotten_after_its_retention_and_not_before,
                a_forgotten_id_runs_again_from_the_start,
                what_is_not_finished_is_never_forgotten,
                a_dead_task_that_is_retried_is_not_forgotten,
                forgetting_is_bounded,
                a_lane_comes_back_after_all_its_tasks_were_forgotten,
                a_queues_own_retention_holds,
            }
            read {
                an_unknown_task_is_not_there,
                status_answers_in_order_and_leaves_out_what_is_unknown,
                results_are_shown_where_they_are_asked_for_and_bounded,
                a_history_keeps_its_last_fifty_attempts,
                lists_are_newest_first_and_filtered,
                pages_have_neither_duplicates_nor_holes_while_tasks_come_and_change,
                tasks_that_were_there_before_end_no_list_early,
                a_task_that_was_forgotten_and_came_again_is_listed_once,
                a_page_of_a_rare_state_is_found_among_many,
                there_is_always_a_default_queue_and_queues_are_sorted,
                a_replaced_policy_is_in_force_for_tasks_already_there,
                pausing_an_unknown_queue_says_so,
                a_queue_shows_when_its_next_task_is_due,
                counts_stay_right_whatever_happens,
                agents_are_shown_as_they_reported,
                a_heartbeat_can_ask_for_its_own_length,
                an_agent_that_is_gone_for_an_hour_is_forgotten,
                an_agent_that_drained_and_says_so_is_gone_at_once,
                a_heartbeat_extends_its_leases_and_learns_which_are_over,
                a_store_that_works_says_so,
            }
            gates {
                at_first_there_is_no_gate,
                a_gate_is_made_changed_and_forgotten,
                gates_of_one_name_are_apart_by_what_they_are_before,
                who_was_slower_changes_nothing_and_is_told_what_is_there,
                gates_that_did_not_change_are_not_read_again,
                versions_rise_and_never_come_twice,
                a_batch_is_changed_gate_by_gate,
                there_is_a_bound_on_gates,
                of_many_who_change_a_gate_at_once_one_is_first,
            }
            restricted {
                what_is_behind_a_shut_gate_waits_and_is_told_of,
                nothing_is_told_of_a_gate_behind_which_nothing_waits,
                what_a_claim_avoids_is_not_held_back_from_it,
                gates_are_told_of_in_their_order_and_once,
                what_becomes_due_behind_a_shut_gate_is_noticed_then,
                a_gate_lets_so_many_through_and_no_more,
                claims_of_one_call_share_what_a_gate_lets_through,
                held_lanes_hide_no_other_however_many_there_are,
                what_failed_before_waits_apart,
                what_a_worker_vanished_with_is_a_retry_and_what_nobody_started_is_none,
                a_snooze_or_a_release_leaves_a_task_among_its_own,
                a_retry_by_hand_makes_it_a_first_attempt_again,
                waiting_retries_can_be_called_off_hurried_and_be_too_late,
                retries_count_within_what_a_gate_lets_through,
                a_repeated_request_is_neither_restricted_nor_counted,
                what_is_too_late_uses_nothing_up,
                a_settlement_tells_whose_and_what_it_was,
                retries_wait_apart_when_the_store_is_opened_again,
            }
            costs {
                a_settlement_tells_the_group_of_its_task,
                a_group_that_spent_its_day_waits_for_the_next_and_others_go_on,
                what_a_group_spent_outlives_the_coordinator_and_a_changed_bound_holds_at_once,
            }
            scopes {
                a_queue_that_lets_nothing_through_holds_back_all_of_its_tasks_and_no_others,
                a_queue_lets_so_many_through_whatever_they_need,
                a_group_is_held_back_in_its_queue_alone,
                what_is_in_several_scopes_is_charged_to_each_and_bound_by_the_lowest,
                of_several_scopes_that_let_nothing_through_the_first_is_told,
                a_queue_that_lets_nothing_through_hides_no_other_however_many_lanes_it_has,
                claims_of_one_call_share_what_a_queue_lets_through,
                what_is_too_late_uses_up_nothing_of_a_queue,
            }
            breakers {
                a_command_is_handed_over_until_it_was_carried_out,
                the_same_command_again_is_the_one_that_stands,
                each_breaker_has_its_own_command,
                every_run_of_the_agent_hears_it_and_one_that_starts_later_too,
                commands_given_at_once_are_all_kept,
                commands_are_bounded,
                commands_stand_until_the_agent_is_forgotten,
                commands_are_still_there_when_the_store_is_opened_again,
            }
            lost {
                what_a_run_vanished_with_is_told_to_the_others_for_a_minute,
                the_run_that_held_a_lost_lease_is_told_with_it,
                losses_counted_at_once_are_all_kept,
                losses_are_forgotten_with_the_agent,
                losses_are_still_told_when_the_store_is_opened_again,
            }
            policies {
                a_change_is_kept_with_who_made_it_when_and_why,
                a_queue_that_was_never_changed_is_at_version_0,
                the_policy_in_force_again_makes_no_version,
                a_change_made_from_another_version_is_refused,
                policies_change_together_or_not_at_all,
                a_change_that_was_carried_out_can_be_repeated,
                the_last_fifty_versions_are_kept,
                of_changes_at_once_one_is_made_from_what_was_in_force,
                versions_are_still_there_when_the_store_is_opened_again,
                a_pause_is_no_change_of_a_policy,
            }
            checkpoints {
                what_was_saved_comes_with_the_next_lease,
                numbers_only_rise_and_a_repeat_changes_nothing,
                only_the_lease_that_holds_saves,
                what_was_never_leased_saves_nothing,
                checkpoints_of_one_batch_are_saved_in_order,
                checkpoints_saved_at_once_are_all_kept_or_refused,
                what_was_saved_outlives_the_coordinator,
                a_repeated_request_gets_what_was_saved_since,
                what_was_saved_before_anybody_started_comes_after_a_missed_deadline,
                what_was_saved_goes_with_its_task,
                what_a_person_does_keeps_what_was_saved,
                steps_and_states_are_bounded,
                checkpoints_bound_a_reply,
                whoever_saves_whatever_the_rules_decide,
            }
            references {
                a_payload_s_reference_takes_its_place,
                the_same_contents_under_another_name_are_a_duplicate,
                a_result_s_reference_takes_its_place,
                the_store_tells_which_blobs_are_needed,
                blobs_of_many_tasks_are_told_in_order,
                a_task_whose_payload_is_gone_is_compared_and_never_made,
                a_payload_that_became_too_old_meanwhile_is_not_referred_to,
            }
            reopen {
                everything_is_still_there,
                lanes_are_claimed_as_before,
                leases_hold_and_end_as_before,
                a_repeated_request_still_gets_its_leases,
                a_paused_queue_stays_paused,
                gates_are_still_there,
            }
        }
    };
}

/// One test a behaviour, each on a store of its own.
macro_rules! tests {
    ($fresh:expr; $($area:ident { $($behaviour:ident,)* })*) => {
        $(mod $area {
            $(#[tokio::test]
            async fn $behaviour() {
                let bed = crate::support::Bed::new($fresh).await;
                crate::suite::$area::$behaviour(bed).await;
            })*
        })*
    };
}

/// All behaviours by name.
macro_rules! named {
    ($($area:ident { $($behaviour:ident,)* })*) => {
        vec![$($(
            $crate::suite::together::Behaviour {
                name: concat!(stringify!($area), "::", stringify!($behaviour)),
                run: |bed| Box::pin($crate::suite::$area::$behaviour(bed)),
            },
        )*)*]
    };
}

/// Runs everything against one backend, in a module named after it.
macro_rules! conformance {
    ($backend:ident, $fresh:expr) => {
        mod $backend {
            with_behaviours! { tests!($fresh;) }
        }
    };
}

/// Runs everything in one test: on servers that it starts once, each behaviour on a store of its own.
macro_rules! conformance_together {
    ($backend:ident, $servers:expr, $shards:expr) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $backend() {
            let servers = $servers.await;
            $crate::suite::together::run(&servers.url(), $shards, with_behaviours! { named!() }).await;
        }
    };
}

conformance!(sqlite, crate::support::SqliteBackend::new());
conformance!(redis, crate::support::RedisBackend::new().await);

/// The shared store on more than one Redis, and in more than one shard.
mod redis_together {
    use crate::support::redis::{RedisCluster, RedisSentinel, RedisServer};

    conformance_together!(one_redis_in_four_shards, RedisServer::start(), 4);
    conformance_together!(a_cluster_in_one_shard, RedisCluster::start(), 1);
    conformance_together!(a_cluster_in_sixteen_shards, RedisCluster::start(), 16);
    conformance_together!(a_master_under_sentinel, RedisSentinel::start(), 1);
}
