/* The rounds of one run, from docs/protocol.md#round, small enough for spin to visit every state.

   coordinator   its database, which lasts, and its memory; it may die between any two steps and begins again from the database
   institutions  a journal and a copy of the ledger, which last, and their memory; they die and begin again in the same way
   network       what was sent once may arrive at any time, any number of times, in any order, or never
   clock         the deadline of an open round passes at some time

   What it promises: the assertions in `promises` and at a receipt, and `every_round_ends`. Each mutant makes one mistake that breaks
   one promise; test_round.py holds that spin finds it. Sizes are the defines below; checking.py says which are checked. */

#ifndef N
#define N 2             /* institutions */
#endif
#ifndef ROUNDS
#define ROUNDS 2        /* rounds, committed or abandoned, until the run ends */
#endif
#ifndef QUORUM
#define QUORUM 2
#endif
#ifndef CRASHES
#define CRASHES 2       /* deaths, of all processes together */
#endif
#define VERSIONS 2      /* statements that an institution could sign for one slot: training after a crash gives another delta */

#define SLOT(who, round) ((round - 1) * N + who)
#define BIT(version) (1 << version)
#define IS_OPEN (opened > closed)

/* The coordinator's database. Each step changes it in one transaction. */
byte opened = 0;                    /* rounds opened, and closed: the newest is open while they differ */
byte closed = 0;
bool sealed = false;                /* the open round takes nothing more */
byte taken[N * ROUNDS];             /* contributions in the ledger by slot: the version, 0 for none */
byte inputs[ROUNDS + 2];            /* of each closed round, its sealed set: bits by institution */
bool committed[ROUNDS + 2];

/* The institutions' disks. */
byte known[N];                      /* rounds opened, in their copy of the ledger, which may be an old one */
byte journal[N * ROUNDS];           /* the version that was signed for a slot, 0 for none */
byte held[N * ROUNDS];              /* the version that a receipt is held for, 0 for none */

/* The network: bits by version. Nothing is ever taken out, so anything may come again and late. */
byte sent[N * ROUNDS];
byte receipts[N * ROUNDS];

bool late = false;                  /* the open round's deadline has passed */
byte deaths = 0;
byte signatures[N * ROUNDS];        /* every version that was ever signed for a slot: for the promise alone */

#define MAY_DIE if :: deaths < CRASHES -> deaths++; goto restart :: true fi

#ifdef LIAR                         /* the last institution signs and sends whatever it likes */
#define HONEST (N - 1)
#else
#define HONEST N
#endif

/* What holds after every durable write, whatever went before. */
inline promises() {
  d_step {
    byte slot = 0; byte number = 1; byte who = 0; byte used = 0;
    do
    :: slot < N * ROUNDS ->
       assert(held[slot] == 0 || held[slot] == taken[slot]);                         /* no accepted contribution is lost */
       assert(slot % N >= HONEST || signatures[slot] != (BIT(1) | BIT(2)));          /* no slot is signed twice */
       slot++
    :: else -> break
    od;
    do
    :: number <= closed ->
       who = 0; used = 0;
       do
       :: who < N ->
          assert((taken[SLOT(who, number)] != 0) == ((inputs[number] >> who) & 1));  /* every accepted one is in its round */
          used = used + ((inputs[number] >> who) & 1);
          who++
       :: else -> break
       od;
       assert(!committed[number] || used >= QUORUM);                                 /* no commit without quorum */
       number++
    :: else -> break
    od;
    slot = 0; number = 0; who = 0; used = 0
  }
}

active proctype Coordinator() {
  byte from, about, version, count, set;

restart: skip;
  d_step { from = 0; about = 0; version = 0; count = 0; set = 0 }                    /* memory is gone */
  do
  :: closed == ROUNDS -> break
  :: else ->
     /* #open */
     if
     :: atomic { !IS_OPEN -> opened++; sealed = false; late = false }; MAY_DIE
     :: else
     fi;

     /* #collect: any message that was ever sent, or none */
     if
     :: atomic {
          select(from : 0 .. N - 1); select(about : 1 .. ROUNDS); select(version : 1 .. VERSIONS);
          if
          :: !(sent[SLOT(from, about)] & BIT(version)) -> version = 0
          :: else
             if
             :: taken[SLOT(from, about)] == version                                  /* the very same again: the same receipt */
#ifdef MUTANT_TAKES_OVER
             :: taken[SLOT(from, about)] != version && about == opened && IS_OPEN && !sealed && !late ->
#elif defined(MUTANT_TAKES_WHAT_IS_LATE)
             :: taken[SLOT(from, about)] == 0 && about <= opened ->
#else
             :: taken[SLOT(from, about)] == 0 && about == opened && IS_OPEN && !sealed && !late ->
#endif
#ifdef MUTANT_ACKNOWLEDGES_FIRST
                receipts[SLOT(from, about)] = receipts[SLOT(from, about)] | BIT(version);
                count = version
#else
                taken[SLOT(from, about)] = version
#endif
             :: else -> version = 0                                                  /* refused */
             fi
          fi
        };
        promises();
        MAY_DIE;
        atomic {
#ifdef MUTANT_ACKNOWLEDGES_FIRST
          if :: count != 0 -> taken[SLOT(from, about)] = version :: else fi;
#endif
          if
          :: version != 0 -> receipts[SLOT(from, about)] = receipts[SLOT(from, about)] | BIT(version)
          :: else
          fi;
          from = 0; about = 0; version = 0; count = 0
        }
     :: true
     fi;

     /* #seal, when nothing more is to come: all are in, the deadline has passed, or a quorum is in and the others' leases lapsed */
     atomic {
       do
       :: from < N ->
          if :: taken[SLOT(from, opened)] != 0 -> count++; set = set | (1 << from) :: else fi;
          from++
       :: else -> break
       od;
       from = 0;
       if
       :: sealed
#ifdef MUTANT_WAITS_FOR_ALL
       :: !sealed && count == N -> sealed = true
       :: !sealed && count < N
#else
       :: !sealed && (count == N || late) -> sealed = true
       :: !sealed && count >= QUORUM && count < N && !late -> sealed = true          /* the others' leases lapsed */
       :: !sealed && count < N && !late                                              /* none of it */
#endif
       fi
     };
     MAY_DIE;

     /* #commit or #abandon: the model is written, then the round is closed with exactly this set */
     if
     :: sealed ->
        MAY_DIE;
        d_step {
#ifdef MUTANT_COMMITS_ALWAYS
          committed[opened] = true;
#else
          committed[opened] = (count >= QUORUM);
#endif
          inputs[opened] = set; closed = opened; sealed = false; late = false
        };
        promises()
     :: else
     fi;
     atomic { count = 0; set = 0 }
  od
}

active [N] proctype Institution() {
  byte me, about, version;

restart: skip;
  d_step { me = _pid - 1; about = 0; version = 0 }                                   /* _pid 0 is the coordinator */
  do
  :: closed == ROUNDS -> break

  :: atomic { known[me] < opened -> known[me] = opened }                             /* follows the ledger, some time */

  :: atomic {                                                                        /* works; the round may be over long since */
       known[me] > 0 && held[SLOT(me, known[me])] == 0 && (sent[SLOT(me, known[me])] == 0 || journal[SLOT(me, known[me])] == 0) ->
       about = known[me];
       if
       :: journal[SLOT(me, about)] != 0 -> version = journal[SLOT(me, about)]
       :: journal[SLOT(me, about)] == 0 && signatures[SLOT(me, about)] == 0 -> version = 1   /* trains; which is called 1 is all one */
       :: journal[SLOT(me, about)] == 0 && signatures[SLOT(me, about)] != 0 -> select(version : 1 .. VERSIONS)
       fi
     };
     MAY_DIE;
     atomic {
       signatures[SLOT(me, about)] = signatures[SLOT(me, about)] | BIT(version);
#ifdef MUTANT_SENDS_FIRST
       sent[SLOT(me, about)] = sent[SLOT(me, about)] | BIT(version)
#else
       journal[SLOT(me, about)] = version
#endif
     };
     promises();
     MAY_DIE;
     atomic {
       journal[SLOT(me, about)] = version;
       sent[SLOT(me, about)] = sent[SLOT(me, about)] | BIT(version);
       about = 0; version = 0
     };
     promises()

  :: atomic {
       known[me] > 0 && held[SLOT(me, known[me])] == 0 && receipts[SLOT(me, known[me])] != 0 ->
       about = known[me];
       version = (receipts[SLOT(me, about)] & BIT(1) -> 1 : 2);
       assert(taken[SLOT(me, about)] == version);                                    /* a receipt is a promise */
       held[SLOT(me, about)] = version;
       about = 0; version = 0
     };
     promises()

#ifdef LIAR
  :: atomic {
       me == N - 1 && known[me] > 0 ->
       select(version : 1 .. VERSIONS);
       sent[SLOT(me, known[me])] = sent[SLOT(me, known[me])] | BIT(version);
       version = 0
     }
#endif
  od
}

active proctype Clock() {
  do
  :: closed == ROUNDS -> break
  :: atomic { IS_OPEN && !late -> late = true }
  od
}

ltl every_round_ends { <> (closed == ROUNDS) }
