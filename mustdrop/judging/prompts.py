"""Prompts for judges, by name and version. A changed text gets another version.

Verdicts of two versions are never mixed: the version is part of every verdict's key.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class JudgePrompt:
    """Messages of one call.

    Attributes:
        system: Text of the system's message.
        user: Text of the user's message, with ``{question}``, ``{target}`` and ``{answer}``.
    """

    system: str
    user: str

    def messages(self, question: str, target: str, answer: str) -> list[dict[str, str]]:
        """Messages about one answer."""
        text = self.user.format(question=question, target=target, answer=answer)
        return [{"role": "system", "content": self.system}, {"role": "user", "content": text}]


# Source: M. Maaz et al., Video-ChatGPT, arXiv:2306.05424, Sec. 4.2 (zero-shot question answering);
# the text is that of the authors' quantitative_evaluation/evaluate_activitynet_qa.py, 69ea1db. Its
# example has a score of 4.8, although it asks for an integer.
# Differs from the authors' code: scores are not cut to integers, and a reply that cannot be read is
# counted apart. The authors' code asks again without end until every reply can be parsed.
_VIDEO_CHATGPT = JudgePrompt(
    system=(
        "You are an intelligent chatbot designed for evaluating the correctness of generative "
        "outputs for question-answer pairs. Your task is to compare the predicted answer with the "
        "correct answer and determine if they match meaningfully. Here's how you can accomplish "
        "the task:------##INSTRUCTIONS: - Focus on the meaningful match between the predicted "
        "answer and the correct answer.\n"
        "- Consider synonyms or paraphrases as valid matches.\n"
        "- Evaluate the correctness of the prediction compared to the answer."
    ),
    user=(
        "Please evaluate the following video-based question-answer pair:\n\n"
        "Question: {question}\n"
        "Correct Answer: {target}\n"
        "Predicted Answer: {answer}\n\n"
        "Provide your evaluation only as a yes/no and score where the score is an integer value "
        "between 0 and 5, with 5 indicating the highest meaningful match. Please generate the "
        "response in the form of a Python dictionary string with keys 'pred' and 'score', where "
        "value of 'pred' is  a string of 'yes' or 'no' and value of 'score' is in INTEGER, not "
        "STRING.DO NOT PROVIDE ANY OTHER OUTPUT TEXT OR EXPLANATION. Only provide the Python "
        "dictionary string. For example, your response should look like this: "
        "{{'pred': 'yes', 'score': 4.8}}."
    ),
)
PROMPTS = {"video_chatgpt/1": _VIDEO_CHATGPT}
