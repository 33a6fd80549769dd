/*
 * persist_figures.h - what a persistence scenario found: lines for people, one JSON line for
 *                     programs.
 *
 * Walk:  from bench/persist_table.c and the scenarios in this process; to bench/damso_bench.c.
 *
 * A figure without a value (NAN) is null for programs; people read why, or a dash.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { PERSIST_FIGURES_MAX = 96, PERSIST_FIGURES_NAME = 64, PERSIST_FIGURES_PROBLEM = 1024 };

struct persist_figure {
    char name[PERSIST_FIGURES_NAME];
    double value;
    const char *unit;
};

struct persist_figures {
    const char *scenario;
    uint32_t count;
    uint32_t errors;                       /* what must not be: a message lost, a wrong page */
    char problem[PERSIST_FIGURES_PROBLEM]; /* the first one; empty: none */
    struct persist_figure all[PERSIST_FIGURES_MAX];
};

void persist_figures_init(struct persist_figures *figures, const char *scenario);

/* Adds one; what does not fit is left out. unit: a literal. */
__attribute__((format(printf, 4, 5))) void persist_figures_put(struct persist_figures *figures,
                                                               double value, const char *unit,
                                                               const char *format, ...);

/* Notes the first problem in words; returns error. */
__attribute__((format(printf, 3, 4))) int persist_figures_say(struct persist_figures *figures,
                                                              int error, const char *format, ...);

/* The same, for what does not end the run but fails it. */
__attribute__((format(printf, 2, 3))) void persist_figures_wrong(struct persist_figures *figures,
                                                                 const char *format, ...);

/* One JSON object and a newline on stdout. */
void persist_figures_json(const struct persist_figures *figures);

/* A line a figure on stdout. */
void persist_figures_people(const struct persist_figures *figures);

/* The median of count values, 1 to 64; NAN for none. values is put in order. */
double persist_figures_median(double *values, uint32_t count);

/* True once a signal asked this process to end: between two steps the scenarios look, so that
 * servers and directories go before the process does. */
bool persist_figures_ending(void);
