/* persist_figures.c - see persist_figures.h. */
#include "bench/persist_figures.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void persist_figures_init(struct persist_figures *figures, const char *scenario)
{
    *figures = (struct persist_figures){.scenario = scenario};
}

void persist_figures_put(struct persist_figures *figures, double value, const char *unit,
                         const char *format, ...)
{
    va_list arguments;

    if (figures->count == PERSIST_FIGURES_MAX) {
        return;
    }
    struct persist_figure *const figure = &figures->all[figures->count++];
    figure->value = value;
    figure->unit = unit;
    va_start(arguments, format);
    (void)vsnprintf(figure->name, sizeof(figure->name), format, arguments);
    va_end(arguments);
}

__attribute__((format(printf, 2, 0))) static void say(struct persist_figures *figures,
                                                      const char *format, va_list arguments)
{
    if (figures->problem[0] == '\0') {
        (void)vsnprintf(figures->problem, sizeof(figures->problem), format, arguments);
    }
}

int persist_figures_say(struct persist_figures *figures, int error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    say(figures, format, arguments);
    va_end(arguments);
    return error;
}

void persist_figures_wrong(struct persist_figures *figures, const char *format, ...)
{
    va_list arguments;

    figures->errors++;
    va_start(arguments, format);
    say(figures, format, arguments);
    va_end(arguments);
}

/* Only what would end or bend a JSON string is replaced: problems quote others' words. */
static void put_text(const char *text)
{
    for (; *text != '\0'; text++) {
        const unsigned char byte = (unsigned char)*text;
        (void)putchar(byte < 0x20 || byte == '"' || byte == '\\' || byte >= 0x7f ? '?' : byte);
    }
}

void persist_figures_json(const struct persist_figures *figures)
{
    (void)printf("{\"scenario\":\"%s\"", figures->scenario);
    for (uint32_t i = 0; i < figures->count; i++) {
        const struct persist_figure *const figure = &figures->all[i];
        if (isfinite(figure->value)) {
            (void)printf(",\"%s\":%.3f", figure->name, figure->value);
        } else {
            (void)printf(",\"%s\":null", figure->name);
        }
    }
    (void)printf(",\"errors\":%u,\"problem\":\"", figures->errors);
    put_text(figures->problem);
    (void)puts("\"}");
}

void persist_figures_people(const struct persist_figures *figures)
{
    (void)printf("%s\n", figures->scenario);
    for (uint32_t i = 0; i < figures->count; i++) {
        const struct persist_figure *const figure = &figures->all[i];
        if (isfinite(figure->value)) {
            (void)printf("  %-44s %14.*f %s\n", figure->name, figure->value < 100 ? 3 : 0,
                         figure->value, figure->unit);
        } else {
            (void)printf("  %-44s %14s\n", figure->name, "-");
        }
    }
    if (figures->problem[0] != '\0') {
        (void)printf("  first problem: %s\n", figures->problem);
    }
}

static int compare(const void *left, const void *right)
{
    const double a = *(const double *)left;
    const double b = *(const double *)right;

    return (a > b) - (a < b);
}

double persist_figures_median(double *values, uint32_t count)
{
    if (count == 0) {
        return NAN;
    }
    qsort(values, count, sizeof(*values), compare);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

bool persist_figures_ending(void)
{
    sigset_t pending;

    (void)sigpending(&pending);
    return sigismember(&pending, SIGHUP) == 1 || sigismember(&pending, SIGINT) == 1 ||
           sigismember(&pending, SIGTERM) == 1;
}
