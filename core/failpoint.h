/*
 * failpoint.h - named places where a test may end the process at once, as kill -9 or a loss of
 * power would: between any two steps that must be repeatable.
 *
 * Only a build with the option test_seams has them; in a product build failpoint is empty. Named by
 * the environment: DAMSO_KILL=<name>:<n>, the n-th time that place is passed, counted from 1 over
 * all threads. DAMSO_KILL_LOG=<path>: each place passed for the first time is appended there, so
 * that a test can prove that its place exists.
 *
 * Threads: any.
 */
#pragma once

#ifdef DAMSO_SEAMS
void failpoint(const char *name);
#else
static inline void failpoint(const char *name)
{
    (void)name;
}
#endif
