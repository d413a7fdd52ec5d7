//! Limits: a rate that clears in seconds, a window that clears in hours, or an allowance that is gone.
//!
//! Providers send all three as 429 (some as 400, 402 or 403) and mix their words: Google tells a per-minute limit to "check
//! your plan and billing details", and daily limits come with an offer to buy credits. So the kind of limit is decided here,
//! in one place, by the most lasting thing that is *stated* and not by what is offered.

use super::evidence::Evidence;
use super::lexicon::{Codes, Topic};
use crate::failure::FailureClass;

/// The allowance itself is zero: no waiting helps.
pub(super) const NOTHING_ALLOWED: &str =
    "limit: 0|; limit of 0|; limit 0,; quota of 0|; limit is 0|; limit: 0,";

/// Money, credits, or a plan that does not include this.
pub(super) const NO_MONEY: &str = "\
     {balance,credit,credits}~{insufficient,not enough,too low,exhausted,depleted,used up}; \
     {insufficient,not enough,no remaining,no more,out of,exhausted,depleted,negative}~{balance,credit}; \
     not~enough~{balance,credit}; no {credit,credits,quota}~{left,remaining}; out of~usage; \
     credits exceeded; {maximum,max}~credits; quota~{insufficient,not enough,used up}; {account,you,\
     you've,team,organization,plan,key}~{run out of,ran out of}; credit balance; insufficient*balance; \
     insufficient*credit; insufficient*quota; out of credits; out of funds; billing hard limit; \
     hard limit*reached; spend limit; spending limit; spend cap; spending cap; payment required; \
     budget has been exceeded; exceeded*budget; budget limit; budget exceeded; over budget; no credits; \
     have any credits; no remaining credits; not enough credit; not enough balance; \
     balance is not enough; requires more credits; can only afford; requires*credits; credits*exhausted; \
     credits*depleted; depleted*credits; exhausted*credits; ran out of credit; run out of credit; \
     used all*credits; exceeded*monthly included credits; specified api usage limits; \
     billing is not active; credits have been; billing not active; please check your billing; past due; \
     overdue payment; overdue bill; free trial*ended; free trial*expired; free quota*exhausted; \
     free tier*exhausted; free*quota exceeded; negative balance; please recharge; recharge your account; \
     exceeded your current quota; usage is not included; monthly usage limit; credit limit; \
     enable billing; billing to be enabled; billing disabled; buy more credits; spend*limit*reached; \
     balance is too low; balance too low; remaining balance; exceed*available credit; \
     characters remaining; credits remaining; exceeds your quota; quota is not enough; not enough quota; \
     storage quota; run out of*credit; balance*exhausted; unpaid invoice; overdue invoice; \
     no active subscription; subscription*expired; prepaid*exhausted";

/// An allowance that is used up: gone where no period is named after which it comes back.
pub(super) const USED_UP: &str = "quota~{used up,exhausted,depleted}";

/// A period that is longer than a retry can wait out, and that ends by itself.
pub(super) const WINDOW: &str = "\
     {current,this} {day,week,month}; *-{day,hour,week}~{limit,quota}; {sending,relay,outgoing} {limit,quota}; \
     premium request{s,} {limit,allowance}; per day; *perday; */day; */ day; per 24 hours; daily; *-per-day; \
     *(tpd); *(rpd); tpd|; rpd|; requests a day; per week; weekly; *perweek; 5-hour; 5 hour; five-hour; \
     five hour; hour limit; hourly usage limit; session limit; usage limit; usage cap; limit*resets; \
     limit will reset; hit your limit; for today; today's; call volume quota; per month; */month; \
     */ month; monthly; totalrequests limit; 24-hour; 24 hour; until tomorrow; \
     quota will be replenished; rolling window; rolling time window; quota refresh; youtube.quota; \
     midnight; next billing cycle; this billing period";

/// A short period, or plain words for going too fast.
pub(super) const RATE: &str = "\
     cooling down; cooldown; frequency limit; frequency control; too frequent; temporarily deferred; \
     greylist; unexpected volume; unusual rate; overlimit; per minute; *perminute; */min; / min; \
     per second; *persecond; per-minute; *(tpm); *(rpm); tpm|; rpm|; itpm|; tokens per min; \
     requests per min; *rate limit; *rate-limit; *ratelimit; *rate_limit; too many requests; \
     too many tokens; request rate; *throttl; requests too frequent; concurrent requests; \
     concurrent connections; concurrency limit; too many concurrent; reduce your request rate; \
     slow down; slowdown; quota exceeded; exceeded*quota; quota*exceeded; exceeding*quota; \
     resource exhausted; resource has been exhausted; *resource_exhausted; calls per; requests per; \
     per hour; call limit; over*query limit; blocked*temporarily*rate; abuse detection; too quickly; \
     too fast; requests limit; request limit; too many requ; too many r\"; capacity on this model; \
     flood control; flood wait; *floodwait; parallel request limit; too many api calls; too many calls; \
     allowed {every,once}; only once~every";

/// Words that make it a limit at all, before asking which one.
pub(super) const LIMIT: &str =
    "limit; quota; credit; balance; billing; budget; exceeded; allowance; usage; payment; spend";

/// Google's per-minute limits speak of plans and billing as well.
pub(super) const GOOGLE: &str = "generativelanguage; quota exceeded for metric; please retry in; aiplatform.googleapis; \
         quota will reset after";

/// From this hint on, a limit without a name is a window: nothing per minute takes an hour to clear.
const WINDOW_FROM_MS: u64 = 3_600_000;

/// A window, or an allowance that is gone; `None` leaves room for other causes and at last for [`mentioned`].
pub(super) fn lasting(evidence: &Evidence, hint_ms: Option<u64>) -> Option<FailureClass> {
    let heard = evidence.heard;
    // About limits by itself, unless the server says when to come back; SQL's "limit 0, 10" is not.
    let nothing = evidence.prose.contains(" limit of 0 ") && hint_ms.is_none();
    if !(nothing || about_limits(evidence)) {
        return None;
    }
    if heard.about(Topic::NothingAllowed) || zero_quota(evidence) {
        return Some(FailureClass::QuotaExhausted);
    }
    let code = evidence.named.class(Codes::Limits);
    let window =
        subscription_spent(evidence) || heard.about(Topic::Window) || code == Some(FailureClass::QuotaWindow);
    let google = heard.about(Topic::Google)
        || evidence.fields.iter().any(|(key, _)| key == "quotaid" || key == "retrydelay");
    let no_money = code == Some(FailureClass::QuotaExhausted) || heard.about(Topic::NoMoney);
    if no_money && !google {
        return Some(FailureClass::QuotaExhausted);
    }
    if heard.about(Topic::UsedUp) && !window && !google {
        return Some(FailureClass::QuotaExhausted);
    }
    // 402 asks for money, unless the words are about a pace that clears by itself.
    if evidence.status == Some(402) && !window && !heard.about(Topic::Rate) {
        return Some(FailureClass::QuotaExhausted);
    }
    let slow = (google || heard.about(Topic::Limit)) && hint_ms.is_some_and(|hint| hint >= WINDOW_FROM_MS);
    if window || slow {
        return Some(FailureClass::QuotaWindow);
    }
    google.then_some(FailureClass::RateLimited)
}

/// `RateLimited` where the text talks of rates: for any status, since 400 and 403 are used for it too.
pub(super) fn mentioned(evidence: &Evidence) -> Option<FailureClass> {
    let exhausted_bucket = evidence.status == Some(403)
        && evidence.headers.get("x-ratelimit-remaining").is_some_and(|left| left == "0");
    let paced = evidence.status == Some(403) && evidence.headers.contains_key("retry-after");
    (exhausted_bucket || paced || evidence.heard.about(Topic::Rate)).then_some(FailureClass::RateLimited)
}

/// A limit is at issue where the status says so, a code does, or the words do; the word "monthly" alone is no limit.
fn about_limits(evidence: &Evidence) -> bool {
    let heard = evidence.heard;
    let by_status = matches!(evidence.status, Some(402 | 429));
    by_status
        || evidence.named.class(Codes::Limits).is_some()
        || evidence.named.class(Codes::General) == Some(FailureClass::RateLimited)
        || heard.about(Topic::Rate)
        || (heard.about(Topic::Limit) && (heard.about(Topic::Window) || heard.about(Topic::NoMoney)))
        || heard.about(Topic::MoneyAbroad)
}

/// Subscriptions count in windows of hours and weeks, and tell which one is full in headers only.
fn subscription_spent(evidence: &Evidence) -> bool {
    evidence.headers.iter().any(|(name, value)| {
        let full =
            name.ends_with("-used-percent") && value.parse::<f64>().is_ok_and(|percent| percent >= 100.0);
        full || (name.contains("-unified-") && name.ends_with("status") && value == "rejected")
    })
}

/// Google states the size of the quota in a field of its own.
fn zero_quota(evidence: &Evidence) -> bool {
    evidence
        .fields
        .iter()
        .any(|(key, value)| matches!(key.as_str(), "quotalimitvalue" | "quotavalue") && value == "0")
}
