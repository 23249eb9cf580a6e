/** Agree, disagree, cannot say: the reader's answer on one finding. */

import type { Answer } from "./verdicts";

const CHOICES: { answer: Answer; sign: string; name: string }[] = [
  { answer: "agree", sign: "✓", name: "Agree" },
  { answer: "disagree", sign: "✕", name: "Disagree" },
  { answer: "unsure", sign: "?", name: "Cannot say" },
];

interface Props {
  /** What the answer is about: "Mass, model says yes". */
  about: string;
  answer: Answer | undefined;
  onAnswer: (answer: Answer) => void;
}

export function AnswerButtons({ about, answer, onAnswer }: Props) {
  return (
    <span className="answers" role="group" aria-label={about}>
      {CHOICES.map((choice) => (
        <button
          key={choice.answer}
          type="button"
          className={`answer-${choice.answer}`}
          aria-pressed={answer === choice.answer}
          aria-label={`${choice.name}: ${about}`}
          title={choice.name}
          onClick={() => onAnswer(choice.answer)}
        >
          {choice.sign}
        </button>
      ))}
    </span>
  );
}
