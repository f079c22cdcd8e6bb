/* SPDX-License-Identifier: Apache-2.0
 * The conditions under which stories go on. A, B and C are the primary as the story began, and the others. */
#ifndef KEDGE_TESTS_VOLUME_SIM_STORY_H
#define KEDGE_TESTS_VOLUME_SIM_STORY_H

#include "tests/volume_sim/sim.h"

bool when_soon(struct vsim *s);
bool when_a_leads(struct vsim *s);
bool when_b_leads(struct vsim *s);
bool when_c_leads(struct vsim *s);
bool when_it_is_served(struct vsim *s);
bool when_b_is_out(struct vsim *s);
bool when_c_is_out(struct vsim *s);
bool when_b_and_c_are_out(struct vsim *s);
bool when_b_is_in(struct vsim *s);
bool when_all_are_in(struct vsim *s);
bool when_intents_are_off(struct vsim *s);
bool when_calm(struct vsim *s);
bool when_written(struct vsim *s);
bool when_a_has_it(struct vsim *s);
bool when_b_has_it(struct vsim *s);
bool when_c_has_it(struct vsim *s);
bool when_b_and_c_have_it(struct vsim *s);
bool when_b_intends_it(struct vsim *s);
bool when_a_knows_b(struct vsim *s);
bool when_a_has_proposed(struct vsim *s);
bool when_b_is_settled(struct vsim *s);
bool when_b_is_active_in_the_next_epoch(struct vsim *s);
bool when_a_waits(struct vsim *s);

#endif
