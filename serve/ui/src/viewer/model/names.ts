/** A finding as it is read: `Pleural_Thickening` is stored, "Pleural thickening" is shown. */
export function plainName(finding: string): string {
  const words = finding.replaceAll("_", " ");
  return words.charAt(0) + words.slice(1).toLowerCase();
}
