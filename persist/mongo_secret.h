/*
 * mongo_secret.h - may a text about a URI be shown to people?
 *
 * Walk:       from persist/mongo.c, when libmongoc refuses a URI: its words may quote a part.
 * Threads:    any; nothing here has state.
 */
#pragma once

#include <stdbool.h>

/* Whether text shows something of the URI that is secret: four bytes in a row, or all of a shorter
 * one, of the password, of that of a key file, or of a session token; as they are written in the
 * URI, and decoded. The password is what lies between the first ':' of the user's part and the last
 * '@', for one that was not escaped may hold anything. */
bool mongo_secret_shows(const char *text, const char *uri);
